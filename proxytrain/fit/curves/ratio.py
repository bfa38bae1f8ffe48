"""From training loss to validation loss: a ratio, its drift with size, and how well both are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proxytrain.fit.curves.curve import Curve

DRIFT = 0.01  # prior SD of the drift of log ratio for each e-fold of params


@dataclass(frozen=True)
class Ratio:
    """log(validation / training) = level + drift x log(params / reference), with SD `scatter` from run to run."""

    level: float
    drift: float
    reference: float
    covariance: tuple[tuple[float, float], tuple[float, float]]
    scatter: float
    runs: int

    def at(self, params: float | None) -> tuple[float, float]:
        """Log ratio at a size, and its variance for one new run."""
        x = np.array([1.0, np.log(params / self.reference) if params else 0.0])
        return float(x @ [self.level, self.drift]), float(x @ np.array(self.covariance) @ x) + self.scatter**2


def fit_ratio(curves: Sequence[Curve]) -> Ratio | None:
    """From the later half of the curves that have both losses; None where none has."""
    found, sizes, noise = [], [], []
    for curve in curves:
        if curve.val_step is None or curve.val_loss is None:
            continue
        late = curve.val_step >= curve.updates / 2
        if not late.any():
            late = np.arange(len(curve.val_step)) == len(curve.val_step) - 1
        reach = max(0.02 * curve.updates, 1.0)
        ratios = []
        for step, loss in zip(curve.val_step[late], curve.val_loss[late]):
            near = np.abs(curve.step - step) <= reach
            if near.any():
                ratios.append(float(np.log(loss) - np.log(curve.loss[near]).mean()))
        if ratios:
            found.append(float(np.mean(ratios)))
            noise.append(float(np.std(ratios)) / np.sqrt(len(ratios)))
            sizes.append(curve.params or 1.0)
    if not found:
        return None
    reference = float(np.exp(np.mean(np.log(sizes))))
    x = np.c_[np.ones(len(found)), np.log(np.array(sizes) / reference)]
    prior = np.diag([0.0, 1.0 / DRIFT**2])
    scatter = max(float(np.mean(noise)), 1e-3)
    for _ in range(5):
        precision = x.T @ x / scatter**2 + prior
        coefficients = np.linalg.solve(precision, x.T @ np.array(found) / scatter**2)
        miss = np.array(found) - x @ coefficients
        scatter = float(np.sqrt((miss @ miss + 1e-3**2) / max(len(found) - 1, 1)))
    covariance = np.linalg.inv(precision)
    return Ratio(
        float(coefficients[0]),
        float(coefficients[1]),
        reference,
        tuple(tuple(float(v) for v in row) for row in covariance),  # type: ignore[arg-type]
        scatter,
        len(found),
    )
