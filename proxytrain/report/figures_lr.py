"""Figures of learning rates, where the grid tried several: how much the peak matters, and where the best one lies."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxytrain.fit import Optimum
from proxytrain.report import ink
from proxytrain.report.figures import Picture, View
from proxytrain.report.rates import RateCell

MUTED, INK, ACCENT = (ink.COLOURS[n][0] for n in ("muted", "ink", "accent"))


def sensitivity(view: View) -> Picture | None:
    """Final loss against peak learning rate, a line a size."""
    rates = view.facts.rates
    if not rates:
        return None
    found = rates.cells

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
        "the best rate"
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
    rates, goal = view.facts.rates, view.facts.target
    if not rates or len(rates.cells) < 2:
        return None
    found, wide = rates.cells, len({c.row.depth for c in rates.cells}) == 1
    sizes = [float(c.row.width if wide else c.row.params) for c in found]
    best = rates.target if goal else None
    aim = float(goal.width if wide else goal.params) if best and goal else None

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
        seen = [r for c in found for r in c.rates]
        if best and goal and aim:
            ax.plot([aim, aim], [best.lr_low, best.lr_high], color=ACCENT, lw=2, zorder=4, solid_capstyle="butt")
            (diamond,) = ax.plot(aim, best.lr, "D", ms=6.5, color=ACCENT, mec="none", zorder=5)
            ink.hover(diamond, f"the target: {_aim(best)}")
            (cross,) = ax.plot(aim, goal.lr, "x", ms=7, mew=1.6, color=INK, zorder=6)
            ink.hover(cross, f"the target's own rate: {goal.lr:g}")
            seen += [best.lr_low, best.lr_high, goal.lr]
        places = [*sizes, *([aim] if aim else [])]
        ticks = sorted(set(seen[: -3 if aim else None]))
        ink.log_axis(ax.xaxis, min(places) * 0.85, max(places) * 1.18, ink.count, 6, places)
        ink.log_axis(ax.yaxis, min(seen) * 0.85, max(seen) * 1.15, lambda v: f"{v:.3g}", 6, ticks)
        ax.set_xlabel("width" if wide else "parameters")
        ink.top_label(ax, "best peak base learning rate")

    alt = "Best learning rate against size: " + "; ".join(_words(view, c) for c in found) + "."
    return Picture(
        "optimum",
        "The best learning rate against size",
        "A level line means that the parametrization carries the rate from small models to large ones.",
        "Dots: the best rate. Pale bars: rates tried that are as good within seed noise. "
        + ("Triangles: the best lies at the edge of what was tried, or beyond. " if any(c.edge for c in found) else "")
        + (f"Red: the target's, {_aim(best)}; cross: the rate it has." if best else ""),
        alt,
        view.draw("optimum", alt, ("half",), paint),
    )


def _aim(best: Optimum) -> str:
    return f"{best.lr:.3g}, between {best.lr_low:.3g} and {best.lr_high:.3g} ({best.level:.0%} interval)"


def _words(view: View, c: RateCell) -> str:
    where = {-1: "at the lowest rate tried, ", 0: "", 1: "at the highest rate tried, "}[c.edge]
    return f"{view.label(c.row)}: {where}{c.best:.3g} (as good: {c.good[0]:.3g} to {c.good[1]:.3g})"
