"""A capability that appears at once: where a loss falls faster than before although its learning rate did not change.

Under a constant rate a power law plus a constant only ever slows down in log-log. A loss that falls by much more over
one stretch than its earlier slope allows has learnt something new, such as copying; no law here describes that.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from proxytrain.fit.curves.curve import Curve

RATIO = 1.25  # of one stretch: from update s to this many times s
EXCESS = 0.05  # of log loss, beyond the earlier slope: less is no jump (copying learnt at once is .1 and more)
SURE = 5.0  # standard errors
FIRST = 3.0  # stretches start at so many warm-ups


@dataclass(frozen=True)
class Jump:
    """Between updates `start` and `end` the loss fell by `excess` (log) more than its slope before allowed."""

    curve: str
    start: int
    end: int
    excess: float


def jump(curve: Curve) -> Jump | None:
    """The largest jump of a curve in its stretch of constant rate; None where there is none."""
    moved = np.flatnonzero(np.abs(curve.lr[curve.warmup :] / curve.lr.max() - 1.0) > 0.05)
    last = min(curve.warmup + int(moved[0]) if len(moved) else curve.updates, int(curve.step[-1]))
    first = max(FIRST * curve.warmup, last / 60, 10.0)
    count = int(np.log(last / first) / np.log(RATIO)) if last > first else 0
    if count < 4:
        return None
    edges = last / RATIO ** np.arange(count, -1, -1.0)
    at = np.searchsorted(curve.step, edges)
    if (np.diff(at) < 2).any():
        return None
    pieces = [np.log(curve.loss[a:b]) for a, b in pairwise(at)]
    mean = np.array([p.mean() for p in pieces])
    error = np.array([p.std(ddof=1) / np.sqrt(len(p)) for p in pieces])
    fall = -np.diff(mean)  # over one stretch each
    unsure = np.hypot(error[1:], error[:-1])
    found = None
    for k in range(1, len(fall)):
        before = int(np.argmin(fall[:k]))
        more = fall[k] - fall[before]
        sure = more / np.hypot(unsure[k], unsure[before])
        if more > EXCESS and sure > SURE and fall[k] > 1.5 * fall[before] and (found is None or more > found.excess):
            found = Jump(curve.name, int(edges[k]), int(edges[k + 2]), float(more))
    return found
