"""Pictures of a fit of loss curves: schedules, curves with the fitted law and its band, residuals. PNG and SVG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from proxytrain.fit import Curve, CurveFit
from proxytrain.report import ink

MOST = 6  # curves that are drawn; more are a tangle


def draw_curves(fit: CurveFit, stem: Path) -> list[Path]:
    """Draw a fit that still has its curves; returns the files that were written, `stem`.png and .svg."""
    chosen = _chosen(list(fit.curves))
    several = len({c.params for c in chosen}) > 1
    colours = (
        ink.palette(len(chosen)).light if several else [ink.HUES[i % len(ink.HUES)][0] for i in range(len(chosen))]
    )
    with ink.canvas("wide", 3) as (figure, (rates, losses, misses)):
        figure.set_size_inches(12.0, 4.2)
        rates.set_title("learning rate / peak")
        losses.set_title(f"loss: rows (dots), law (line), {fit.level:.0%} band")
        misses.set_title("residual of the law, %")
        for curve, colour in zip(chosen, colours):
            _draw(fit, curve, colour, rates, losses, misses)
        misses.axhline(0.0, color=ink.COLOURS["muted"][0], lw=0.8)
        for ax in (rates, losses, misses):
            ax.set_xlabel("updates")
        losses.legend(fontsize=8, frameon=False)
        figure.tight_layout()
        files = [stem.with_suffix(end) for end in (".png", ".svg")]
        for file in files:
            figure.savefig(file, dpi=160, facecolor=ink.COLOURS["page"][0])
    return files


def _chosen(curves: list[Curve]) -> list[Curve]:
    """A few curves, evenly over sizes and lengths."""
    order = sorted(curves, key=lambda c: (c.params or 0.0, c.updates, c.name))
    at = sorted({round(i) for i in np.linspace(0, len(order) - 1, min(MOST, len(order)))})
    return [order[i] for i in at]


def _draw(fit: CurveFit, curve: Curve, colour: str, rates, losses, misses) -> None:  # type: ignore[no-untyped-def]
    from scipy.stats import t as student

    step = np.unique(np.geomspace(max(curve.warmup + 1, 2), curve.updates, 250).astype(int))
    rates.plot(np.arange(1, curve.updates + 1), curve.lr / curve.lr.max(), color=colour, lw=1.2)
    size = f"{ink.count(curve.params)}, " if curve.params else ""
    name = curve.name if len(curve.name) <= 24 else curve.name[:22] + "…"
    key = curve.val_loss if fit.predicts == "validation" and curve.val_loss is not None else curve.loss
    at = curve.val_step if fit.predicts == "validation" and curve.val_step is not None else curve.step
    assert at is not None
    late = at > curve.warmup
    thin = max(1, int(late.sum()) // 120)
    losses.plot(at[late][::thin], key[late][::thin], ".", color=colour, ms=2.5)
    centre, variance = fit.outlook(curve.lr, step, curve.params)
    half = float(student.ppf(0.5 + fit.level / 2, fit.freedom)) * np.sqrt(variance)
    losses.plot(step, np.exp(centre), color=colour, lw=1.2, label=size + name)
    losses.fill_between(step, np.exp(centre - half), np.exp(centre + half), color=colour, alpha=0.15, lw=0)
    rows = np.maximum(at[late][::thin], 1)
    miss = np.log(key[late][::thin]) - fit.outlook(curve.lr, rows, curve.params)[0]
    misses.plot(rows, 100 * miss, color=colour, lw=0.9, marker="." if len(rows) < 5 else None)
