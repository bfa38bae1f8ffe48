"""Two recipes: whose loss is lower at which compute, and where their laws cross (arXiv 2409.15156)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from proxytrain.errors import RequestError

if TYPE_CHECKING:
    from proxytrain.fit.result import Fit

POINTS = 400


@dataclass(frozen=True)
class Comparison:
    """Two fits along one ratio of tokens to params.

    `difference` (n,) is log(loss a / loss b) at each of `flops` (n,) and `half` (n,) the half-width of its interval at
    `level`; below zero a is better. `crossing` is where the difference changes sign (None: nowhere in the range), and
    `crossing_interval` where around it the sign is not known. `winner` is "a", "b" or None, at the largest compute.
    """

    flops: np.ndarray
    difference: np.ndarray
    half: np.ndarray
    crossing: float | None
    crossing_interval: tuple[float, float] | None
    winner: str | None
    level: float


def compare(a: Fit, b: Fit, tokens_per_param: float, level: float = 0.9) -> Comparison:
    """Compare two recipes from the smallest compute of both to as far as both fits may predict.

    The interval holds what is not known of either law (parameters, which law, what the backtest saw), not the luck of
    single runs. Losses must be of the same validation set and tokenizer.
    """
    from scipy.stats import norm

    if not (isinstance(tokens_per_param, (int, float)) and 1e-3 < tokens_per_param < 1e7):
        raise RequestError(f"tokens_per_param={tokens_per_param!r}: must be above 0.001 and below 1e7")
    start = max(6 * min(n * d for n, d in zip(f.runs["params"], f.runs["tokens"])) for f in (a, b))
    stop = min(f.predictor.range.compute * np.exp(f.farthest) for f in (a, b))
    flops = np.geomspace(start, max(stop, start * 1.01), POINTS)
    params = np.sqrt(flops / 6 / tokens_per_param)
    columns = {"params": params, "tokens": params * tokens_per_param, "unique_tokens": params * tokens_per_param}
    views = [f.predictor.outlook(columns) for f in (a, b)]
    difference = views[0].centre - views[1].centre
    scales = [f.predictor.calibration() for f in (a, b)]
    variance = sum(c**2 * (((v.down + v.up) / 2) ** 2 + v.between) for c, v in zip(scales, views))
    half = float(norm.ppf(0.5 + level / 2)) * np.sqrt(variance)
    known = np.abs(difference) > half
    winner = ("a" if difference[-1] < 0 else "b") if known[-1] else None
    change = np.flatnonzero(np.diff(np.sign(difference)) != 0)
    if not len(change):
        return Comparison(flops, difference, half, None, None, winner, level)
    at = int(change[-1])
    low = at - int(np.argmax(known[at::-1])) if known[: at + 1].any() else 0
    high = at + 1 + int(np.argmax(known[at + 1 :])) if known[at + 1 :].any() else POINTS - 1
    share = difference[at] / (difference[at] - difference[at + 1])
    crossing = float(np.exp(np.log(flops[at]) + share * np.log(flops[at + 1] / flops[at])))
    return Comparison(flops, difference, half, crossing, (float(flops[low]), float(flops[high])), winner, level)
