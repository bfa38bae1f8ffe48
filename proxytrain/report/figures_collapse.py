"""Normalised loss curves of several sizes, with the band of seeds: one line where training scales well."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxytrain.analysis.collapse import EARLY, WINDOW
from proxytrain.report import ink
from proxytrain.report.facts import Facts
from proxytrain.report.figures import Picture, View

MUTED = ink.COLOURS["muted"][0]


def collapse(view: View) -> Picture | None:
    """Curves by size over the share of training; beside them how far each is from the mean of all."""
    assert isinstance(view.facts, Facts)
    found = view.facts.collapse
    if not found:
        return None
    rows = {float(r.params): r for r in view.facts.rows if float(r.params) in found.curves}
    x, seeds = found.x, found.across_seeds
    mean = np.mean(list(found.curves.values()), axis=0)
    last = np.flatnonzero(found.compared)[-1]

    def paint(axes: list[Any], size: str) -> None:
        wide = size == "wide"
        for i, ax in enumerate(axes):
            ax.set_position([0.06 + 0.46 * i, 0.125, 0.38, 0.79] if wide else [0.12, 0.61 - 0.48 * i, 0.66, 0.32])
            ax.set_xlim(0, 1)
        whole, apart = axes
        labels = []
        if seeds is not None:
            for ax, middle, scale in ((whole, mean, mean), (apart, 0 * mean, 0 * mean + 100)):
                band = ax.fill_between(x, middle - seeds * scale, middle + seeds * scale, color=MUTED, alpha=0.2, lw=0)
                ink.hover(band, "runs of one size under other seeds: one SD")
        for n, row in rows.items():
            off = 100 * (found.curves[n] / mean - 1)
            for ax, y in ((whole, found.curves[n]), (apart, off)):
                (line,) = ax.plot(x, y, color=view.colour(row), lw=1.3, zorder=3)
                ink.hover(line, f"{view.label(row)}, mean over seeds")
            labels.append((float(off[last]), view.label(row), view.colour(row)))
        shown = x >= EARLY / 2
        whole.set_ylim(0.95, 1.02 * max(float(c[shown].max()) for c in found.curves.values()))
        most = max(float(np.abs(100 * (c / mean - 1))[x >= EARLY].max()) for c in found.curves.values())
        most = 1.15 * max(most, float(100 * seeds[found.compared].max()) if seeds is not None else 0.0)
        apart.set_ylim(-most, most)
        ink.top_label(whole, "(L − L0) / (final L − L0)")
        ink.top_label(apart, "from the mean of the sizes, %")
        ink.end_labels(apart, labels)
        for ax in axes if wide else axes[1:]:
            ax.set_xlabel("share of training")

    verdict, floor = (f"{line[0].upper()}{line[1:]}." for line in found.summary())
    return Picture(
        "collapse",
        "Collapse",
        "Where rate, batch, init and length scale well, curves of all sizes are one; a size that leaves the grey band "
        "of seeds is trained unlike the others.",
        f"Training loss above L0 over that at the end, each a mean over the {WINDOW:.0%} of training before "
        f"(2507.02119). Grey: one SD of runs that differ in seed only. {verdict} {floor}",
        f"Normalised loss curves of {len(rows)} sizes. {verdict}",
        view.draw("collapse", verdict, ("wide", "phone"), paint, 2),
    )
