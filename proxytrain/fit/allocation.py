"""How a compute budget is best split between size and length, by the fitted laws (6 N D FLOPs)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.predictor import Member, Predictor

RATIOS = (1e-2, 1e5)  # tokens a parameter among which the optimum is looked for
POINTS = 241


@dataclass(frozen=True)
class Allocation:
    """Best size and length for `flops`, with intervals (low, high) at `level` for where the optimum lies."""

    flops: float
    params: float
    tokens: float
    tokens_per_param: float
    params_interval: tuple[float, float]
    tokens_interval: tuple[float, float]
    tokens_per_param_interval: tuple[float, float]
    level: float


def allocate(predictor: Predictor, flops: float, level: float) -> Allocation:
    """Split `flops` so that the predicted loss is least.

    The interval holds parameter uncertainty (bootstrap) and the disagreement of the laws that are combined.

    Raises a Refusal where the fit has laws at fixed lengths only, or no optimum inside reasonable ratios.
    """
    if not (isinstance(flops, (int, float)) and 1e9 <= flops < 1e32):
        raise RequestError(f"flops={flops!r}: must be FLOPs, at least 1e9")
    able = [
        (m, w) for m, w in zip(predictor.members, predictor.weights) if {"params", "tokens"} <= set(m.bound.law.columns)
    ]
    if not able:
        raise Refusal("these laws have no best split; fit one in params and tokens, such as chinchilla")
    ratio = np.geomspace(*RATIOS, POINTS)
    params = np.sqrt(flops / 6 / ratio)
    columns = {"params": params, "tokens": params * ratio, "unique_tokens": params * ratio}
    weight = np.array([w for _, w in able]) / sum(w for _, w in able)
    curve = np.tensordot(weight, np.array([_values(m, columns, m.theta) for m, _ in able]), 1)
    best = _lowest(curve[None], np.log(ratio))[0]
    spread = [_lowest(_values(m, columns, m.draws), np.log(ratio)) for m, _ in able]
    if not np.isfinite(best):
        raise Refusal(
            f"no best split of {flops:.3g} FLOPs between {RATIOS[0]:g} and {RATIOS[1]:g} tokens a parameter: the loss "
            "falls with one of them only; add runs at more sizes and lengths"
        )
    shares = np.concatenate([np.full(len(s), w / len(s)) for s, w in zip(spread, weight)])
    pooled = np.concatenate([np.where(np.isfinite(s), s, np.log(RATIOS[1])) for s in spread])
    low, high = (float(np.exp(_quantile(pooled, shares, q))) for q in (0.5 - level / 2, 0.5 + level / 2))
    r = float(np.exp(best))

    def size(a: float) -> float:
        return float(np.sqrt(flops / 6 / a))

    def length(a: float) -> float:
        return float(np.sqrt(flops / 6 * a))

    return Allocation(
        float(flops), size(r), length(r), r, (size(high), size(low)), (length(low), length(high)), (low, high), level
    )


def _values(member: Member, columns: dict[str, np.ndarray], theta: np.ndarray) -> np.ndarray:
    return member.bound.form.value(theta, member.bound.design(columns))


def _lowest(curves: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Where each curve (S, n) is lowest, by a parabola through the three lowest points; NaN at an end."""
    i = curves.argmin(1)
    inner = np.clip(i, 1, curves.shape[1] - 2)
    rows = np.arange(len(curves))
    a, b, c = curves[rows, inner - 1], curves[rows, inner], curves[rows, inner + 1]
    bend = a - 2 * b + c
    shift = np.where(bend > 0, 0.5 * (a - c) / np.where(bend > 0, bend, 1.0), 0.0)
    return np.where(i == inner, at[inner] + shift * (at[1] - at[0]), np.nan)


def _quantile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][min(int(np.searchsorted(total, q * total[-1])), len(values) - 1)])
