"""Pictures of an optimum's laws: each grid's own optimum, and the law through them with its interval. PNG and SVG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from proxytrain.fit import OptimumFit
from proxytrain.report import ink

NAMES = {"lr": "optimal learning rate", "batch_tokens": "optimal batch, tokens"}
FORMS = {"lr": "{:g}".format, "batch_tokens": ink.count}


def draw_optimum(fit: OptimumFit, stem: Path) -> list[Path]:
    """Draw the laws against compute; returns the files that were written, `stem`_optimum.png and .svg."""
    from scipy.stats import t as student

    compute = 6 * fit.about["params"] * fit.about["tokens"]
    order = np.argsort(compute)
    sizes = np.unique(fit.about["params"])
    colours = dict(zip(sizes, ink.palette(len(sizes)).light))
    with ink.canvas("wide", len(fit.laws)) as (figure, panels):
        figure.set_size_inches(5.2 * len(fit.laws) + 1.0, 4.4)
        for ax, (name, law) in zip(panels, fit.laws.items()):
            places = [{c: float(v[k]) for c, v in fit.about.items()} for k in order]
            centre, variance = np.array([law.at(p) for p in places]).T
            half = float(student.ppf(0.5 + fit.level / 2, law.freedom)) * np.sqrt(variance)
            for n in sizes:
                own = fit.about["params"] == n
                mine = own[order]
                ax.plot(
                    compute[own], fit.optimum[name][own], "o", color=colours[n], ms=6, label=f"{ink.count(n)} params"
                )
                x, y, h = compute[order][mine], centre[mine], half[mine]
                ax.plot(x, np.exp(y), color=colours[n], lw=1.3)
                if len(x) > 1:
                    ax.fill_between(x, np.exp(y - h), np.exp(y + h), color=colours[n], alpha=0.12, lw=0)
                else:
                    ax.plot([x[0], x[0]], np.exp([y[0] - h[0], y[0] + h[0]]), color=colours[n], lw=5, alpha=0.25)
            low, high = np.exp([(centre - half).min(), (centre + half).max()])
            ink.log_axis(ax.xaxis, compute.min() / 1.3, compute.max() * 1.3, ink.power_of_ten, most=4)
            ink.log_axis(ax.yaxis, low / 1.1, high * 1.1, FORMS[name])
            ax.set_xlabel("6 params tokens, FLOPs")
            ax.set_title(NAMES[name], fontsize=11)
        panels[0].legend(fontsize=8, frameon=False)
        figure.tight_layout()
        files = [stem.with_name(f"{stem.name}_optimum{end}") for end in (".png", ".svg")]
        for file in files:
            figure.savefig(file, dpi=160, facecolor=ink.COLOURS["page"][0])
    return files
