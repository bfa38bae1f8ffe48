"""Two recipes: whose loss is lower at which compute, and where their laws cross (arXiv 2409.15156)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import RequestError
from proxytrain.fit.core.level import checked_level

if TYPE_CHECKING:
    from proxytrain.fit.losses.result import Fit

BUDGETS = 400
BELOW = 100.0  # factor below the smallest runs to which a crossing is looked for


@dataclass(frozen=True)
class Comparison:
    """Two fits along one ratio of tokens to params.

    `difference` (n,) is log(loss a / loss b) at each of `flops` (n,) and `half` (n,) the half-width of its interval at
    `level`; below zero a is better. `runs` are the least and the largest compute that both fits have runs at.
    `crossing` is where the difference last changes sign (None: nowhere from a hundredth of the smallest runs to as far
    as both may predict), `crossing_interval` where around it the sign is not known, and `where` is "none", "before",
    "inside" or "beyond" the runs. `slope` is how fast the difference grows with log flops at the largest runs, and
    `slope_interval` its interval. `winner` is "a", "b" or None, at the largest compute that both may predict.
    """

    flops: Array
    difference: Array
    half: Array
    runs: tuple[float, float]
    crossing: float | None
    crossing_interval: tuple[float, float] | None
    where: str
    slope: float
    slope_interval: tuple[float, float]
    winner: str | None
    level: float
    tokens_per_param: float

    def summary(self, a: str = "a", b: str = "b") -> list[str]:
        """Short lines for people, with names for the two."""
        names = {"a": a, "b": b}
        lines = [f"{a} against {b} at {self.tokens_per_param:g} tokens per parameter, {100 * self.level:g}% intervals:"]
        for place, flops in zip(("smallest runs", "largest runs", "farthest answer"), (*self.runs, self.flops[-1])):
            i = int(np.abs(np.log(self.flops / flops)).argmin())
            d, h = self.difference[i], self.half[i]
            better = f"{a if d < 0 else b} is better" if abs(d) > h else "not known which is better"
            lines.append(f"  at {flops:.3g} FLOPs ({place}): {100 * d:+.2f}% ± {100 * h:.2f}% loss: {better}")
        if self.crossing is None or self.crossing_interval is None:
            lines.append("  the laws do not cross there")
        else:
            low, high = (
                f"{v:.3g}" if lower < v < upper else "beyond what can be said"
                for v, lower, upper in zip(self.crossing_interval, self.flops[[0, 0]], self.flops[[-1, -1]])
            )
            lines.append(f"  the laws cross at {self.crossing:.3g} FLOPs ({low} to {high}), {self.where} the runs")
        winner = "no winner: the interval spans both" if self.winner is None else f"winner: {names[self.winner]}"
        return [*lines, f"  at {self.flops[-1]:.3g} FLOPs {winner}"]


def compare(a: Fit, b: Fit, tokens_per_param: float = 20.0, level: float = 0.9) -> Comparison:
    """Compare two recipes, as far as both fits may predict.

    The interval holds what is not known of either law (parameters, which law, what the backtest saw), not the luck of
    single runs. Losses must be of the same validation set and tokenizer.

    Raises a RequestError for fits in one variable other than flops, or a ratio or level that cannot be.
    """
    from scipy.stats import norm

    if not (isinstance(tokens_per_param, (int, float)) and 1e-3 < tokens_per_param < 1e7):
        raise RequestError(f"tokens_per_param={tokens_per_param!r}: must be above 0.001 and below 1e7")
    checked_level(level)
    least = max(_least(f) for f in (a, b))
    largest = min(f.predictor.range.compute for f in (a, b))
    stop = max(min(f.predictor.range.compute * np.exp(f.farthest) for f in (a, b)), largest, least * 1.01)
    flops = np.geomspace(least / BELOW, stop, BUDGETS)
    params = np.sqrt(flops / 6 / tokens_per_param)
    tokens = params * tokens_per_param
    columns = {"params": params, "tokens": tokens, "unique_tokens": tokens, "flops": flops}
    views = [f.predictor.outlook(columns) for f in (a, b)]
    difference = views[0].centre - views[1].centre
    scales = [f.predictor.calibration() for f in (a, b)]
    variance = sum(c**2 * (((v.down + v.up) / 2) ** 2 + v.between) for c, v in zip(scales, views))
    times = float(norm.ppf(0.5 + level / 2))
    half = times * np.sqrt(variance)
    known = np.abs(difference) > half
    winner = ("a" if difference[-1] < 0 else "b") if known[-1] else None
    top = int(np.abs(flops - largest).argmin())
    slope, error = _slope(a, b, columns, top, scales)
    change = np.flatnonzero(np.diff(np.sign(difference)) != 0)
    crossing, interval, where = None, None, "none"
    if len(change):
        at = int(change[-1])
        low = at - int(np.argmax(known[at::-1])) if known[: at + 1].any() else 0
        high = at + 1 + int(np.argmax(known[at + 1 :])) if known[at + 1 :].any() else BUDGETS - 1
        share = difference[at] / (difference[at] - difference[at + 1])
        crossing = float(np.exp(np.log(flops[at]) + share * np.log(flops[at + 1] / flops[at])))
        interval = (float(flops[low]), float(flops[high]))
        where = "before" if crossing < least else "inside" if crossing <= largest else "beyond"
    return Comparison(
        flops,
        difference,
        half,
        (least, largest),
        crossing,
        interval,
        where,
        slope,
        (slope - times * error, slope + times * error),
        winner,
        float(level),
        float(tokens_per_param),
    )


def _least(fit: Fit) -> float:
    """Compute of the smallest run fitted."""
    if fit.data.only not in (None, "flops"):
        raise RequestError(f"a fit in {fit.data.only} alone cannot be compared along compute")
    if fit.data.only:
        return min(fit.runs["flops"])
    return 6 * min(n * d for n, d in zip(fit.runs["params"], fit.runs["tokens"]))


def _slope(a: Fit, b: Fit, columns: dict[str, Array], top: int, scales: list[float]) -> tuple[float, float]:
    """Slope of log(loss a / loss b) in log flops about a point, and its standard error, by refits."""
    here = {c: v[[max(top - 8, 0), min(top + 8, BUDGETS - 1)]] for c, v in columns.items()}
    run = float(np.diff(np.log(here["flops"]))[0])
    rise = [np.diff(f.predictor.outlook(here).centre)[0] / run for f in (a, b)]
    spread = [_spread(f, here) / run for f in (a, b)]
    return float(rise[0] - rise[1]), float(np.hypot(spread[0] * scales[0], spread[1] * scales[1]))


def _spread(fit: Fit, here: dict[str, Array]) -> float:
    """Standard deviation of the rise of log loss between two places over the refits of the law with the largest weight
    that answers there (a law with levels knows only its own tokens)."""
    for _, member in sorted(zip(fit.predictor.weights, fit.members), key=lambda pair: -pair[0]):
        rise = np.diff(member.log_loss_draws(here), axis=1)
        if np.isfinite(rise).sum() > 1:
            return float(np.nanstd(rise))
    return float("nan")
