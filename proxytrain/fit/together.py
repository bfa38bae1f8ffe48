"""One answer from two witnesses of the same runs: their final losses and their loss curves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from proxytrain.fit.curves.result import CurvePrediction
from proxytrain.fit.losses.result import Prediction

ALIKE = 0.6  # correlation of the errors of both, in units of their intervals; measured on both banks


def together(ends: Prediction, curves: CurvePrediction) -> Prediction:
    """The mean of what both say of one new run, in log loss, weighed by the precision of each.

    Whether the run lies too far out, `ends` has decided, and its note is kept. Both see the same runs, so their errors
    are correlated (`ALIKE`). Where they lie farther apart than that allows at the level of the intervals, the interval
    is stretched by as much. On the bank it covers as an interval should (FINDINGS.md, "Curves or ends").
    """
    logs = np.log([[ends.loss, ends.low, ends.high], curves.final])  # (2, 3): loss, low, high
    half = np.ptp(logs[:, 1:], axis=1) / 2
    weight = half**-2.0 / (half**-2.0).sum()
    centre = float(weight @ logs[:, 0])
    apart = abs(float(logs[0, 0] - logs[1, 0])) / np.sqrt((half**2).sum() - 2 * ALIKE * half.prod())
    shares = weight * np.abs(logs[:, 1:] - logs[:, :1]).T  # (2, 2): below and above, of each
    down, up = (max(1.0, apart) * np.sqrt((shares**2).sum(1) + 2 * ALIKE * shares.prod(1))).tolist()
    parts = {
        name: {"loss": loss, "low": low, "high": high, "weight": float(w)}
        for name, (loss, low, high), w in zip(("final losses", "loss curves"), np.exp(logs).tolist(), weight)
    }
    loss, low, high = (float(np.exp(v)) for v in (centre, centre - down, centre + up))
    return replace(ends, loss=loss, low=low, high=high, parts=parts)
