"""A fit of curves in lines for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxytrain.fit.curves.result import CurveFit


def summary(fit: CurveFit) -> list[str]:
    """What was fitted, with which law, how well it was held out, and what is not known."""
    sizes = fit.covered.params
    of = f", {len(sizes)} sizes from {sizes[0]:.3g} to {sizes[-1]:.3g} parameters" if len(sizes) > 1 else ""
    lines = [
        f"{fit.data.curves} curves under {fit.data.schedules} schedules, up to {fit.covered.updates:,} updates{of}"
    ]
    if len(fit.members) > 1:
        shares = ", ".join(f"{m.law.name} {w:.2f}" for m, w in zip(fit.members, fit.weights))
        lines.append(f"laws, weighed by what was held out: {shares}")
    main = fit.main
    lines.append(f"{main.law.name}: {main.law.formula}")
    unit = "rates as given" if fit._unit != 1.0 else "rates in units of the peak"
    stderr = fit.stderr
    lines.append("  " + ", ".join(f"{n} {v:.4g} ({stderr[n]:.2g})" for n, v in fit.params.items()) + f"   [{unit}]")
    lines.append(f"  residuals {100 * main.noise:.2f}% a row, {main.together:.0f} rows err together")
    if fit.not_identified:
        names = ", ".join(f"{n} ({100 * s:.0f}%)" for n, s in fit.not_identified.items())
        lines.append(f"  not told by the curves, but by a weak prior (its share of the precision): {names}")
    if fit.backtest:
        lines.append("held out, and predicted from the rest:")
        for cut in dict.fromkeys(h.cut for h in fit.backtest):
            rows = [h for h in fit.backtest if h.cut == cut]
            miss = 100 * sum(h.rms for h in rows) / len(rows)
            inside = sum(h.low <= h.loss <= h.high for h in rows)
            what = (
                f"{len(rows)} curves"
                if len(rows) > 1
                else f"end {rows[0].loss:.4f}, predicted {rows[0].prediction:.4f}"
            )
            lines.append(f"  {cut}: {what}; error {miss:.2f}%; {inside} of {len(rows)} ends inside their interval")
    else:
        lines.append("nothing could be held out: three schedules, longer runs or more sizes are needed for a backtest")
    if fit.ratio:
        lines.append(
            f"validation / training loss {100 * fit.ratio.level:+.2f}% (log) from {fit.ratio.runs} curves, drift "
            f"{100 * fit.ratio.drift:+.2f}% for each e-fold of params, scatter {100 * fit.ratio.scatter:.2f}%: "
            "predictions are of validation loss"
        )
    return lines + [f"note: {w}" for w in fit.warnings]
