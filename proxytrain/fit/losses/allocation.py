"""How a compute budget is best split between size and length (6 N D FLOPs), by the fitted laws.

`isoflop` does it by the runs themselves, without a law. The three ways share little, so they are shown side by side:

    parametric   the split at which the fitted laws are lowest
    isoflop      parabolas through the runs of one budget each; their lowest points; a power law through those
    envelope     the runs that no other beats at their compute; a power law through their sizes

(arXiv 2203.15556, approaches 3, 2 and 1.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal
from proxytrain.fit.losses.predictor import Member, Predictor

APPROACHES = ("parametric", "isoflop", "envelope")
RATIOS = (1e-2, 1e5)  # tokens per parameter among which the optimum is looked for
SPLITS = 241
FLOPS_STEP = 0.5  # in log flops, to either side, for the exponent


@dataclass(frozen=True)
class Allocation:
    """Best size and length for `flops`, with intervals (low, high) at `level` for where the optimum lies.

    `exponent` is that of params in flops: N_opt goes as C^exponent, and tokens as C^(1 - exponent).
    """

    flops: float
    params: float
    tokens: float
    tokens_per_param: float
    params_interval: tuple[float, float]
    tokens_interval: tuple[float, float]
    tokens_per_param_interval: tuple[float, float]
    level: float
    exponent: float
    exponent_interval: tuple[float, float]
    approach: str

    def __str__(self) -> str:
        def span(pair: tuple[float, float]) -> str:
            return f"{pair[0]:.3g} to {pair[1]:.3g}"

        return (
            f"{self.params:.3g} params ({span(self.params_interval)}) x {self.tokens:.3g} tokens, "
            f"{self.tokens_per_param:.3g} a parameter ({span(self.tokens_per_param_interval)}); "
            f"params ~ C^{self.exponent:.2f} ({self.exponent_interval[0]:.2f} to {self.exponent_interval[1]:.2f})"
        )


def by_law(predictor: Predictor, flops: float, level: float) -> Allocation:
    """Split `flops` so that the predicted loss is least.

    The interval holds parameter uncertainty (bootstrap) and the disagreement of the laws that are combined.

    Raises a Refusal where the fit has laws at fixed lengths only, or no optimum inside reasonable ratios.
    """
    able = [
        (m, w) for m, w in zip(predictor.members, predictor.weights) if {"params", "tokens"} <= set(m.bound.law.columns)
    ]
    if not able:
        raise Refusal("these laws have no best split; fit one in params and tokens, such as chinchilla")
    weight = np.array([w for _, w in able]) / sum(w for _, w in able)
    members = [m for m, _ in able]
    here, fewer, more = (_optimum(members, weight, flops * np.exp(s * FLOPS_STEP)) for s in (0, -1, 1))
    if not np.isfinite(here[0]):
        raise Refusal(
            f"no best split of {flops:.3g} FLOPs between {RATIOS[0]:g} and {RATIOS[1]:g} tokens per parameter: the "
            "loss falls with one of them only; add runs at more sizes and lengths"
        )
    shares = np.concatenate([np.full(len(m.draws), w / len(m.draws)) for m, w in zip(members, weight)])
    ratio = np.where(np.isfinite(here[1]), here[1], np.log(RATIOS[1]))
    slope = 0.5 - (more[1] - fewer[1]) / (4 * FLOPS_STEP)  # log N = (log C/6 - log ratio) / 2
    known = np.isfinite(slope)
    return from_draws(
        flops,
        level,
        "parametric",
        0.5 * (np.log(flops / 6) - here[0]),
        0.5 * (np.log(flops / 6) - ratio),
        0.5 - (more[0] - fewer[0]) / (4 * FLOPS_STEP),
        slope[known],
        shares,
        shares[known],
    )


def from_draws(
    flops: float,
    level: float,
    approach: str,
    size: float,
    sizes: Array,
    slope: float,
    slopes: Array,
    shares: Array,
    slope_shares: Array,
) -> Allocation:
    """From log params and draws of it, and its slope in log flops and draws of that, each draw with its share."""
    tail = 0.5 - level / 2
    low, high = (float(np.exp(_quantile(sizes, shares, q))) for q in (tail, 1 - tail))
    ends = [_quantile(slopes, slope_shares, q) if len(slopes) else np.nan for q in (tail, 1 - tail)]
    n = float(np.exp(size))
    product = flops / 6
    return Allocation(
        flops,
        n,
        product / n,
        product / n**2,
        (low, high),
        (product / high, product / low),
        (product / high**2, product / low**2),
        level,
        float(slope),
        (ends[0], ends[1]),
        approach,
    )


def _optimum(members: Sequence[Member], weight: Array, flops: float) -> tuple[float, Array]:
    """Log tokens per parameter at which the mixture is lowest, and at which each refit of each law is."""
    ratio = np.geomspace(*RATIOS, SPLITS)
    params = np.sqrt(flops / 6 / ratio)
    columns = {"params": params, "tokens": params * ratio, "unique_tokens": params * ratio}
    curve = np.tensordot(weight, np.array([_values(m, columns, m.theta) for m in members]), 1)
    spread = [_lowest(_values(m, columns, m.draws), np.log(ratio)) for m in members]
    return float(_lowest(curve[None], np.log(ratio))[0]), np.concatenate(spread)


def _values(member: Member, columns: Mapping[str, Array], theta: Array) -> Array:
    return member.bound.form.value(theta, member.bound.design(columns))


def _lowest(curves: Array, at: Array) -> Array:
    """Where each curve (S, n) is lowest, by a parabola through the three lowest points; NaN at an end."""
    i = curves.argmin(1)
    inner = np.clip(i, 1, curves.shape[1] - 2)
    rows = np.arange(len(curves))
    a, b, c = curves[rows, inner - 1], curves[rows, inner], curves[rows, inner + 1]
    bend = a - 2 * b + c
    shift = np.where(bend > 0, 0.5 * (a - c) / np.where(bend > 0, bend, 1.0), 0.0)
    return np.where(i == inner, at[inner] + shift * (at[1] - at[0]), np.nan)


def _quantile(values: Array, weights: Array, q: float) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][min(int(np.searchsorted(total, q * total[-1])), len(values) - 1)])
