"""Picture of a coordinate check: mean |x| of each module against size, a line an update. PNG and SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxytrain.report import ink

if TYPE_CHECKING:
    from proxytrain.train.coordcheck import Scan


def draw_scans(scans: list[Scan], stem: Path) -> list[Path]:
    """Draw the modules that are judged; returns the files that were written, `stem`.png and .svg."""
    most = max(len(s.judged) for s in scans)
    with ink.canvas("wide", 1) as (figure, _):
        figure.clf()
        panels = figure.subplots(len(scans), most, squeeze=False).ravel()
        figure.set_size_inches(2.1 * most + 1.0, 2.7 * len(scans) + 0.4)
        for row, scan in enumerate(scans):
            for column in range(most):
                ax = panels[row * most + column]
                if column < len(scan.judged):
                    _draw(ax, scan, list(scan.judged)[column], first=column == 0)
                else:
                    ax.axis("off")
        figure.tight_layout()
        files = [stem.with_suffix(end) for end in (".png", ".svg")]
        for file in files:
            figure.savefig(file, dpi=160, facecolor=ink.COLOURS["page"][0])
    return files


def _draw(ax: Any, scan: Scan, module: str, *, first: bool) -> None:
    values = scan.seen[module].mean(2)  # (updates + 1, sizes)
    for update, (line, colour) in enumerate(zip(values, ink.palette(len(values)).light)):
        if (line > 0).all():
            ax.plot(scan.sizes, line, color=colour, lw=1.4, marker=".", label=f"after {update}" if first else None)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(scan.sizes, [str(s) for s in scan.sizes], fontsize=7)
    ax.minorticks_off()
    low, high = values[values > 0].min(), values.max()
    ink.log_axis(ax.yaxis, low / 1.5, max(high, 2 * low) * 1.5, "{:g}".format, most=5)
    ax.tick_params(labelsize=7)
    ax.set_xlabel(scan.axis, fontsize=8)
    ax.set_title(f"{module}\nslope {scan.slope(module):+.2f}", fontsize=8)
    if first:
        ax.set_ylabel("mean |x|", fontsize=8)
        ax.legend(fontsize=6, frameon=False, title="updates", title_fontsize=6)
