"""Figures of learning rates, where the grid tried several: how much the peak matters, and where the best one lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from proxytrain.report import ink
from proxytrain.report.facts import Row
from proxytrain.report.figures import Picture, View

LEAST = 3  # rates tried of a setting
MUTED, INK, ACCENT = (ink.COLOURS[n][0] for n in ("muted", "ink", "accent"))


@dataclass(frozen=True)
class Cell:
    """Runs of one size, length and schedule that differ in their peak rate and seeds only.

    `best` is the vertex of a parabola through the lowest mean loss and its neighbours, in logarithms; at an edge of
    the rates tried it is that rate, and `edge` says on which side (-1, 1) the rest is missing. `good` are the least and
    the largest rate tried whose loss is no worse than the best by more than the seed noise of a difference of two.
    """

    row: Row
    rates: np.ndarray  # (n,)
    losses: np.ndarray  # (n,) mean over seeds
    runs: list[Row]
    best: float
    edge: int
    good: tuple[float, float]


def cells(view: View) -> list[Cell]:
    """Of the length and schedule under which most sizes tried several rates; by size."""
    found: dict[tuple, dict[float, list[Row]]] = {}
    for r in view.facts.done:
        if r.final < ink.HIGHEST:
            found.setdefault((r.schedule, r.tokens, r.other, r.params), {}).setdefault(r.lr, []).append(r)
    found = {k: v for k, v in found.items() if len(v) >= LEAST}
    groups: dict[tuple, list[tuple]] = {}
    for key in found:
        groups.setdefault(key[:3], []).append(key)
    if not groups:
        return []
    main = view.facts.schedule
    chosen = max(groups, key=lambda g: (len(groups[g]), g[0] == main, g[1]))
    noise = view.facts.fit.noise.run if view.facts.fit else 0.0
    return [_cell(found[key], noise) for key in sorted(groups[chosen], key=lambda k: k[3])]


def _cell(found: dict[float, list[Row]], noise: float) -> Cell:
    rates = np.array(sorted(found))
    losses = np.array([np.mean([r.final for r in found[lr]]) for lr in rates])
    seeds = np.array([len(found[lr]) for lr in rates])
    k = int(losses.argmin())
    edge = -1 if k == 0 else 1 if k == len(rates) - 1 else 0
    best = float(rates[k])
    if not edge:
        a, b, _ = np.polyfit(np.log(rates[k - 1 : k + 2]), np.log(losses[k - 1 : k + 2]), 2)
        best = float(np.exp(-b / (2 * a)))
    near = rates[np.log(losses / losses[k]) <= noise * np.sqrt(1 / seeds + 1 / seeds[k])]
    runs = [r for lr in rates for r in found[float(lr)]]
    return Cell(runs[0], rates, losses, runs, best, edge, (float(near.min()), float(near.max())))


def sensitivity(view: View) -> Picture | None:
    """Final loss against peak learning rate, a line a size."""
    found = cells(view)
    if not found:
        return None

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.1, right=0.8, top=0.9, bottom=0.155)
        labels = []
        for c in found:
            colour = view.colour(c.row)
            (line,) = ax.plot(c.rates, c.losses, color=colour, lw=1.3, zorder=2)
            ink.hover(line, f"{view.label(c.row)}, {ink.count(c.row.tokens)} tokens, mean over seeds")
            dots = ax.scatter([r.lr for r in c.runs], [r.final for r in c.runs], s=18, color=colour, lw=0, zorder=3)
            ink.hover(dots, *map(view.result, c.runs))
            ax.plot(c.best, c.losses.min(), "|", ms=16, mew=1.6, color=INK if not c.edge else ACCENT, zorder=4)
            labels.append((float(c.losses[-1]), view.label(c.row), colour))
        rates = np.concatenate([c.rates for c in found])
        losses = np.concatenate([[r.final for r in c.runs] for c in found])
        room = (rates.max() / rates.min()) ** 0.06
        ink.log_axis(ax.xaxis, rates.min() / room, rates.max() * room, lambda v: f"{v:.3g}", 5, sorted(set(rates)))
        ink.log_axis(ax.yaxis, losses.min() * 0.985, losses.max() * 1.015, ink.plain)
        ax.set_xlabel("peak base learning rate")
        ink.top_label(ax, "final loss, nats a token")
        ink.end_labels(ax, labels)

    alt = "Final loss against peak learning rate. Best: " + "; ".join(_words(view, c) for c in found) + "."
    return Picture(
        "sensitivity",
        "How much the learning rate matters",
        "Flat valleys forgive; where the lowest points of all sizes lie above each other, one rate serves them all.",
        f"Runs of {ink.count(found[0].row.tokens)} tokens under {found[0].row.schedule}; lines: mean over seeds. Bars: "
        "the best rate, by a parabola through the lowest three points"
        + (
            "; red ones lie at an edge of what was tried, the best may lie beyond."
            if any(c.edge for c in found)
            else "."
        ),
        alt,
        view.draw("sensitivity", alt, ("half",), paint),
    )


def optimum(view: View) -> Picture | None:
    """The best learning rate against width."""
    found = cells(view)
    if len(found) < 2:
        return None
    sizes = [float(c.row.width if _by_width(found) else c.row.params) for c in found]

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.115, right=0.97, top=0.9, bottom=0.155)
        for x, c in zip(sizes, found):
            colour = view.colour(c.row)
            ax.plot([x, x], c.good, color=colour, lw=5, alpha=0.3, solid_capstyle="butt", zorder=2)
            marker = "o" if not c.edge else "v" if c.edge < 0 else "^"
            (dot,) = ax.plot(x, c.best, marker, ms=7, color=colour, mec="none", zorder=3)
            ink.hover(dot, _words(view, c))
        ax.plot(sizes, [c.best for c in found], color=MUTED, lw=1, zorder=1)
        if view.facts.target and _by_width(found):
            ax.axvline(view.facts.target.width, color=ACCENT, lw=1.2, ls=(0, (4, 2)), zorder=1)
        rates = np.concatenate([c.rates for c in found])
        last = max([*sizes, *([view.facts.target.width] if view.facts.target and _by_width(found) else [])])
        ink.log_axis(ax.xaxis, min(sizes) * 0.85, last * 1.15, ink.count, 6, sizes)
        ink.log_axis(ax.yaxis, rates.min() * 0.85, rates.max() * 1.15, lambda v: f"{v:.3g}", 6, sorted(set(rates)))
        ax.set_xlabel("width" if _by_width(found) else "parameters")
        ink.top_label(ax, "best peak base learning rate")

    alt = "Best learning rate against size: " + "; ".join(_words(view, c) for c in found) + "."
    return Picture(
        "optimum",
        "The best learning rate against size",
        "A level line means that the parametrization carries the rate from small models to large ones.",
        "Dots: the best rate. Pale bars: rates tried that are as good within seed noise. "
        + ("Triangles: the best lies at the edge of what was tried, or beyond. " if any(c.edge for c in found) else "")
        + ("Dashed: the target's width." if view.facts.target and _by_width(found) else ""),
        alt,
        view.draw("optimum", alt, ("half",), paint),
    )


def _by_width(found: list[Cell]) -> bool:
    return len({c.row.depth for c in found}) == 1


def _words(view: View, c: Cell) -> str:
    where = {-1: "at the lowest rate tried, ", 0: "", 1: "at the highest rate tried, "}[c.edge]
    return f"{view.label(c.row)}: {where}{c.best:.3g} (as good: {c.good[0]:.3g} to {c.good[1]:.3g})"
