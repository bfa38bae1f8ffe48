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
        f"{fit.data['curves']} curves under {fit.data['schedules']} schedules, "
        f"up to {fit.covered.updates:,} updates{of}"
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
        width = max(len(h.cut) for h in fit.backtest)
        for h in fit.backtest:
            inside = "inside" if h.low <= h.loss <= h.high else "OUTSIDE"
            lines.append(
                f"  {h.cut:{width}}  {h.curve}: end {h.loss:.4f}, predicted {h.prediction:.4f} "
                f"[{h.low:.4f}, {h.high:.4f}] {inside}; mean error {100 * h.error:+.2f}%"
            )
    else:
        lines.append("nothing could be held out: three schedules, longer runs or more sizes are needed for a backtest")
    if fit.ratio:
        lines.append(
            f"validation / training loss {100 * fit.ratio.level:+.2f}% (log) from {fit.ratio.runs} curves, drift "
            f"{100 * fit.ratio.drift:+.2f}% for each e-fold of params, scatter {100 * fit.ratio.scatter:.2f}%: "
            "predictions are of validation loss"
        )
    return lines + [f"note: {w}" for w in fit.warnings]
