"""Which figures the page has, in which order, and what they share: one colour a model size, one name a size.

A figure is a function from the view to a `Picture`, or to None where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from proxytrain.report import ink
from proxytrain.report.facts import Facts, Row, Shown

MOST_COLOURS = 12


@dataclass(frozen=True)
class Picture:
    """One figure in the sizes that the page shows, with its words."""

    key: str
    heading: str
    read: str  # how to read it, one sentence
    caption: str
    alt: str
    variants: dict[str, str]  # size -> inline SVG


@dataclass(frozen=True)
class View:
    """The facts, and the colours and names of model sizes."""

    facts: Shown
    sizes: tuple[int, ...]  # N of the grid, ascending
    palette: ink.Palette

    @classmethod
    def of(cls, facts: Shown) -> View:
        sizes = tuple(sorted({r.params for r in facts.rows}))
        return cls(facts, sizes, ink.palette(min(len(sizes), MOST_COLOURS)))

    def colour(self, row: Row) -> str:
        colours = self.palette.light
        return colours[round(self.sizes.index(row.params) * (len(colours) - 1) / max(1, len(self.sizes) - 1))]

    def label(self, row: Row) -> str:
        """The size of a model in a word or two: what differs in the grid."""
        if not row.width or len({r.width for r in self.facts.rows if r.params == row.params}) > 1:
            return f"{ink.count(row.params)} params"
        if len({r.depth for r in self.facts.rows}) == 1:
            return f"width {row.width}"
        return f"{row.width} × {row.depth}"

    def svg(self, figure: Any, key: str, alt: str) -> str:
        return ink.svg(figure, key, alt, self.palette.names())

    def draw(self, key: str, alt: str, sizes: Sequence[str], paint: Callable[..., None], panels: int = 1) -> dict:
        """`paint(axes, size)` once a size; the SVGs by size."""
        out = {}
        for size in sizes:
            with ink.canvas(size, panels) as (figure, axes):
                paint(axes, size)
                out[size] = self.svg(figure, f"{key}-{size}" if len(sizes) > 1 else key, alt)
        return out


def pictures(facts: Facts) -> tuple[list[Picture], ink.Palette]:
    """All figures of a sweep that there is something to draw for, and the colours they use."""
    from proxytrain.report import figures_fit, figures_training

    return _drawn(
        facts,
        figures_training.curves,
        figures_fit.fit,
        figures_training.schedules,
        figures_training.by_schedule,
        figures_fit.compute,
        figures_fit.residuals,
        figures_fit.backtest,
        figures_fit.seeds,
    )


def pictures_of_table(shown: Shown) -> tuple[list[Picture], ink.Palette]:
    """The same for the fit of a table, of whose runs only the ends are known."""
    from proxytrain.report import figures_fit

    single = shown.fit is not None and shown.fit.data["only"]
    return _drawn(
        shown,
        *([figures_fit.line] if single else [figures_fit.fit, figures_fit.compute]),
        figures_fit.residuals,
        figures_fit.backtest,
        figures_fit.coverage,
    )


def _drawn(facts: Shown, *makers: Callable[[View], Picture | None]) -> tuple[list[Picture], ink.Palette]:
    view = View.of(facts)
    return [p for p in (make(view) for make in makers) if p], view.palette
