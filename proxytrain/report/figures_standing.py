"""Which recipe is better: each at its own best rate, with bars that overlap where the order may be seed noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxytrain.analysis.ranking import Ranking
from proxytrain.report import ink
from proxytrain.report.figures import Picture, View
from proxytrain.report.standing import BUDGETS, place, sentence

MUTED, INK, ACCENT = (ink.COLOURS[n][0] for n in ("muted", "ink", "accent"))
MOST = 12  # recipes that are drawn


def standing(view: View) -> Picture | None:
    """Mean loss of each recipe over that of the best, a panel a budget that is equal."""
    found = getattr(view.facts, "standing", None)
    if not found:
        return None
    rankings = found.rankings

    def paint(axes: list[Any], size: str) -> None:
        wide = size == "wide"
        room = (0.2 if wide else 0.32) * min(1.0, max(len(n) for r in rankings for n in r.names[:MOST]) / 18) + 0.06
        axes[0].figure.subplots_adjust(left=room, right=0.975, top=0.9, bottom=0.16, wspace=room * len(rankings) + 0.1)
        for ax, ranking in zip(axes, rankings):
            _panel(ax, ranking)

    alt = " ".join(f"At equal {BUDGETS[r.budget]}: {sentence(r)}." for r in rankings)
    first = rankings[0]
    return Picture(
        "standing",
        "Which recipe is better",
        "Bars that do not overlap differ beyond seed noise; the numbers are the places that a recipe may have.",
        f"Each recipe at its own best learning rate, compared within runs of one size and seed ({first.seeds} seeds, "
        f"{len(first.cells)} pairs of size and length): loss over that of the best, bars for {first.level:.0%} of all "
        "differences at once. Pale dots: single sizes and lengths, means over seeds. Hollow: the best rate lies at the "
        "edge of those tried somewhere, so the recipe may be better than it looks, and is not called worse.",
        alt,
        view.draw("standing", alt, ("wide", "phone") if len(rankings) == 1 else ("wide",), paint, len(rankings)),
    )


def _panel(ax: Any, ranking: Ranking) -> None:
    from matplotlib.ticker import MaxNLocator

    names = ranking.names[:MOST]
    at = np.arange(len(names))[::-1]
    middle = 100 * np.expm1(ranking.behind[: len(names)])
    seen = [*(middle - 50 * ranking.half), *(middle + 50 * ranking.half)]
    for i, (y, name) in enumerate(zip(at, names)):
        edge = any(c.edge[i] for c in ranking.cells)
        ax.plot(middle[i] + np.array([-50, 50]) * ranking.half, [y, y], color=INK, lw=2.2, zorder=3)
        (dot,) = ax.plot(middle[i], y, "o", ms=7, mec=INK, mew=1.4, color="white" if edge else INK, zorder=4)
        ink.hover(dot, f"{place(ranking, i)} {name}: mean loss {ranking.loss[i]:.4f}, {middle[i]:+.2f}% of the best")
        off = [100 * np.expm1(c.loss[i] - c.loss.min()) for c in ranking.cells]
        dots = ax.scatter(off, np.full(len(off), y - 0.22), s=14, color=MUTED, alpha=0.45, linewidths=0, zorder=2)
        what = ink.count if ranking.budget == "tokens" else lambda v: f"{v:.3g}"
        ink.hover(
            dots,
            *(
                f"{name}, {c.size}, {what(c.budget)} {ranking.budget}: {o:+.2f}% of the best there, at lr {c.lr[i]:.3g}"
                for c, o in zip(ranking.cells, off)
            ),
        )
        seen += off
    room = 0.06 * (max(seen) - min(seen)) or 0.1
    ax.set_xlim(min(seen) - room, max(seen) + room)
    ax.set_ylim(-0.6, len(names) - 0.5)
    ax.set_yticks(at, [f"{place(ranking, i)}  {name}" for i, name in enumerate(names)])
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(ink.percent)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"loss over that of the best, at equal {BUDGETS[ranking.budget]}")
