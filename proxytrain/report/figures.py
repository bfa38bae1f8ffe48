"""Which figures the page has, in which order, and what they share: one colour a model size, one name a size or run.

A figure is a function from the view to a `Picture`, or to None where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proxytrain.files.atomic import remove, write_bytes
from proxytrain.report import ink
from proxytrain.report.facts import Facts, FigureFacts
from proxytrain.report.row import Row

MOST_COLOURS = 12
LENGTHS = 8  # that have a line of the law, or a tick, at most
SCALES = ("log", "linear")


@dataclass(frozen=True)
class Drawn:
    """One drawing in all the sizes and scales that the page shows, and as files for a paper."""

    variants: dict[str, str]  # classes, such as "wide" or "phone log" -> inline SVG
    files: dict[str, bytes]  # suffix -> content


@dataclass(frozen=True)
class Picture:
    """One figure with its words."""

    key: str
    heading: str
    read: str  # how to read it, one sentence
    caption: str
    alt: str
    drawn: Drawn


@dataclass(frozen=True)
class View:
    """The facts, and the colours and names of model sizes."""

    facts: FigureFacts
    sizes: tuple[int, ...]  # N of the grid, ascending
    palette: ink.Palette
    lone: frozenset[int] = field(default=frozenset())  # sizes that one width has

    @classmethod
    def of(cls, facts: FigureFacts) -> View:
        sizes = tuple(sorted({r.params for r in facts.rows}))
        widths: dict[int, set[int]] = {}
        for r in facts.rows:
            widths.setdefault(r.params, set()).add(r.width)
        lone = frozenset(n for n, found in widths.items() if len(found) == 1)
        return cls(facts, sizes, ink.palette(min(len(sizes), MOST_COLOURS)), lone)

    def colour(self, row: Row) -> str:
        colours = self.palette.light
        return colours[round(self.sizes.index(row.params) * (len(colours) - 1) / max(1, len(self.sizes) - 1))]

    def label(self, row: Row) -> str:
        """The size of a model in a word or two: what differs in the grid."""
        if not row.width or row.params not in self.lone:
            return f"{ink.count(row.params)} params"
        if len({r.depth for r in self.facts.rows}) == 1:
            return f"width {row.width}"
        return f"{row.width} × {row.depth}"

    def name(self, row: Row) -> str:
        """A run in a line."""
        if not row.width:
            return f"row {row.id}: {ink.count(row.params)} params, {ink.count(row.tokens)} tokens"
        other = "".join(f", {key} {value}" for key, value in row.other)
        return (
            f"{self.label(row)}, {ink.count(row.tokens)} tokens, {row.schedule}, lr {row.lr:g}{other}, "
            f"seed {row.seeds} ({row.id[:8]})"
        )

    def result(self, row: Row) -> str:
        """A run in a line, and its final loss in the next."""
        error = f" ± {row.val_se:.4f}" if row.val_se else ""
        return f"{self.name(row)}: final loss {row.final:.4f}{error}"

    def counted(self) -> dict[str, float]:
        """N of each run as the fit counts it; the target's under "target"."""
        total, rows = self.facts.total, {r.id: r for r in self.facts.rows}
        if self.facts.target:
            rows["target"] = self.facts.target
        return {name: float(r.params_total if total else r.params) for name, r in rows.items()}

    def draw(
        self,
        key: str,
        alt: str,
        sizes: Sequence[str],
        paint: Callable[..., None],
        panels: int = 1,
        scales: Sequence[str] = (),
    ) -> Drawn:
        """`paint(axes, size)`, or with scales `paint(axes, size, scale)`, once a size and scale."""
        variants: dict[str, str] = {}
        files: dict[str, bytes] = {}
        for size in sizes:
            for scale in scales or ("",):
                name = f"{size} {scale}".strip()
                with ink.canvas(size, panels) as (figure, axes):
                    paint(axes, size, *([scale] if scale else []))
                    svg = ink.svg(figure, f"{key}-{name.replace(' ', '-')}", alt, self.palette.names())
                    if size != "phone":
                        end = "" if scale in ("", SCALES[0]) else f"-{scale}"
                        files |= {f"{end}{suffix}": content for suffix, content in ink.files(figure).items()}
                variants[name] = svg
        return Drawn(variants, files)


def files_of(drawn: Sequence[Picture]) -> dict[str, bytes]:
    """All figures as files by name."""
    return {f"{p.key}{end}": content for p in drawn for end, content in p.drawn.files.items()}


def keep_figures(folder: Path, figures: dict[str, bytes]) -> None:
    """Write figures into a folder of their own; those of a page before that this one does not have go."""
    for old in folder.glob("*"):
        if old.name not in figures and old.suffix in (".svg", ".png"):
            remove(old)
    for name, content in figures.items():
        write_bytes(folder / name, content)


def pictures(facts: Facts) -> tuple[list[Picture], ink.Palette]:
    """All figures of a sweep that there is something to draw for, and the colours they use."""
    from proxytrain.report import (
        figures_backtest,
        figures_collapse,
        figures_lr,
        figures_stability,
        figures_standing,
        figures_training,
    )

    return _drawn(
        facts,
        *((figures_standing.standing,) if facts.standing and not facts.target else ()),
        figures_training.curves,
        *_laws(facts),
        figures_training.outlook,
        figures_training.schedules,
        figures_training.by_schedule,
        figures_collapse.collapse,
        *((figures_standing.standing,) if facts.standing and facts.target else ()),
        figures_backtest.residuals,
        figures_backtest.backtest,
        figures_lr.sensitivity,
        figures_lr.optimum,
        figures_stability.interventions,
        figures_stability.logits,
        figures_stability.largest_logits,
        figures_stability.sensitivities,
        figures_backtest.seeds,
    )


def pictures_of_table(shown: FigureFacts) -> tuple[list[Picture], ink.Palette]:
    """The same for the fit of a table, of whose runs only the ends are known."""
    from proxytrain.report import figures_backtest

    return _drawn(
        shown, *_laws(shown), figures_backtest.residuals, figures_backtest.backtest, figures_backtest.coverage
    )


Maker = Callable[[View], "Picture | None"]


def _laws(shown: FigureFacts) -> list[Maker]:
    """Figures of the laws, by what they know."""
    from proxytrain.report import figures_laws

    single = shown.fit is not None and shown.fit.data.only
    return [figures_laws.line] if single else [figures_laws.fit, figures_laws.lengths, figures_laws.compute]


def _drawn(facts: FigureFacts, *makers: Maker) -> tuple[list[Picture], ink.Palette]:
    view = View.of(facts)
    return [p for p in (make(view) for make in makers) if p], view.palette
