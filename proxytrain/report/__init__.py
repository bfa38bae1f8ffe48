"""The report: one HTML page that answers at a glance. `facts` reads, `figures*` draw, `words` and `page` write;
`page.js` lets a reader point at figures and sort tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxytrain.fit import Fit
    from proxytrain.store.store import Store
    from proxytrain.sweep.request import Request

__all__ = ["write", "write_comparison", "write_table"]


def write(asked: Request, path: Path) -> Path:
    """Write the report of a sweep, finished or not, as one self-contained HTML file, and its figures in `figures/`
    beside it, each as SVG and PNG.

    Parameters
    ----------
    asked : the sweep, as `proxytrain.sweep.request.request` returns it
    path : where to; replaced whole

    Returns
    -------
    Path
        Of the page. What is missing or was refused stands on it and is not raised.
    """
    from proxytrain.report.facts import collect
    from proxytrain.report.page import render

    return _keep(path, *render(collect(asked)))


def write_comparison(store: Store, names: tuple[str, str], tokens_per_param: float | None, path: Path) -> Path:
    """Write the page that holds two sweeps of a store against each other, and its figures in `figures/` beside it.

    Raises a RequestError where they cannot be compared, a Refusal where one cannot be fitted.
    """
    from proxytrain.report.compare import render

    return _keep(path, *render(store, names, tokens_per_param))


def _keep(path: Path, page: str, figures: dict[str, bytes]) -> Path:
    from proxytrain.files.atomic import write_text
    from proxytrain.report.figures import keep_figures

    keep_figures(path.parent / "figures", figures)
    write_text(path, page)
    return path


def write_table(fit: Fit, path: Path) -> list[Path]:
    """Write the page of a table's fit, its predictions as CSV and its figures beside the fit.json at `path`.

    Returns their paths, of the figures that of their folder.
    """
    from proxytrain.report.table import write_table as write

    return write(fit, path)
