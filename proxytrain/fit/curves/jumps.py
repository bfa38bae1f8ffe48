"""A capability that appears: where a loss falls faster than before although its learning rate did not change.

Under a constant rate a power law plus a constant only ever slows down in log-log. A loss that falls by more over one
stretch than over an earlier one has learnt something new, such as copying; no law here describes that.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from proxytrain.fit.curves.curve import Curve
from proxytrain.fit.curves.spikes import without_spikes

STRETCH_RATIO = 1.25  # of the grid of updates: from update s to this many times s
# Steps of that grid that a stretch is long; the log loss beyond what it fell over an earlier one, and how many standard
# errors of it, less than which is no jump; and what share of the constant rate is looked at, from its end. At once; or
# over a factor of two, over which a law falls ever less (curves of the bank by .3% more at most), and late, since at a
# rate that is far too low a loss falls ever faster at first.
RULES = ((1, 0.05, 5.0, 60), (3, 0.015, 3.5, 8))
STEEPER = 1.2  # times the fall of the earlier stretch
FIRST = 3.0  # stretches start at so many warm-ups


@dataclass(frozen=True)
class Jump:
    """Between updates `start` and `end` the loss fell by `excess` (log) more than over as long a stretch before."""

    curve: str
    start: int
    end: int
    excess: float


def jump(curve: Curve) -> Jump | None:
    """Return the largest jump of a curve in its stretch of constant rate; None where there is none.

    A fall from a spike is none.
    """
    curve, _ = without_spikes(curve)
    moved = np.flatnonzero(np.abs(curve.lr[curve.warmup :] / curve.lr.max() - 1.0) > 0.05)
    last = min(curve.warmup + int(moved[0]) if len(moved) else curve.updates, int(curve.step[-1]))
    first = max(FIRST * curve.warmup, last / RULES[0][3], 10.0)
    count = int(np.log(last / first) / np.log(STRETCH_RATIO)) if last > first else 0
    if count < 4:
        return None
    edges = last / STRETCH_RATIO ** np.arange(count, -1, -1.0)
    at = np.searchsorted(curve.step, edges)
    if (np.diff(at) < 2).any():
        return None
    pieces = [np.log(curve.loss[a:b]) for a, b in pairwise(at)]
    mean = np.array([p.mean() for p in pieces])
    spread = np.array(
        [p.std(ddof=1) for p in pieces]
    )  # of few updates it is small by chance now and then: all share one
    error = np.sqrt(np.average(spread**2, weights=np.diff(at)) / np.diff(at))
    found = []
    for steps, least, errors, share in RULES:
        late = max(0, count - int(np.log(share) / np.log(STRETCH_RATIO)))
        fall = mean[late:-steps] - mean[late + steps :]
        unsure = np.hypot(error[late:-steps], error[late + steps :])
        for k in range(steps, len(fall)):
            before = int(np.argmin(fall[: k - steps + 1]))
            more = fall[k] - fall[before]
            sure = more / np.hypot(unsure[k], unsure[before])
            if more > least and sure > errors and fall[k] > STEEPER * fall[before]:
                found.append(Jump(curve.name, int(edges[late + k]), int(edges[late + k + steps + 1]), float(more)))
    return max(found, key=lambda j: j.excess, default=None)
