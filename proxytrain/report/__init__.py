"""The report: one HTML page that answers at a glance. `facts` reads, `figures*` draw, `words` and `page` write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxytrain.sweep import Request

__all__ = ["write"]


def write(asked: Request, path: Path) -> Path:
    """Write the report of a sweep, finished or not, as one self-contained HTML file.

    Parameters
    ----------
    asked : the sweep, as `proxytrain.sweep.request` returns it
    path : where to; replaced whole

    Returns
    -------
    Path
        Of the page. What is missing or was refused stands on it and is not raised.
    """
    from proxytrain.report.facts import collect
    from proxytrain.report.page import render
    from proxytrain.store import write_text

    write_text(path, render(collect(asked)))
    return path
