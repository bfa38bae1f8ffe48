"""Which law, or how much of each: decided by hold-out errors alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from proxytrain.arrays import Array

FEW_CELLS = 8


def combine(laws: Sequence[str], outcomes: Sequence[tuple[dict[str, Array], Array, Array]]) -> tuple[float, ...]:
    """Weights of the laws, in their order, summing to one.

    Parameters
    ----------
    laws : names
    outcomes : of each cut: errors by law (h,), the runs held out (h,), and which of them may be looked at (h,)

    With fewer than eight hold-out cells the laws count alike. Else a law's score is its squared error over the mean
    squared error of all laws on the cells that it predicts, averaged over cuts (1 where it predicts none), and its
    weight is the inverse of that score plus the best one: a law that was lucky in a few cells does not take everything.
    """
    total, count, seen = np.zeros(len(laws)), np.zeros(len(laws)), set()
    for by_law, held, allowed in outcomes:
        nothing = np.full(len(held), np.nan)
        squares = np.array([by_law.get(law, nothing) for law in laws]) ** 2  # (laws, h)
        known = np.isfinite(squares)
        use = allowed & (known.sum(0) >= 2)
        if not use.any():
            continue
        seen.update(held[use].tolist())
        squares, known = np.where(known, squares, 0.0)[:, use], known[:, use]
        typical = squares.sum(0) / known.sum(0)
        predicts = known.any(1)
        score = squares.sum(1) / ((known * typical).sum(1) + 1e-12)
        total += np.where(predicts, score, 0.0)
        count += predicts
    if len(laws) == 1 or len(seen) < FEW_CELLS:
        return tuple(1.0 / len(laws) for _ in laws)
    score = np.where(count > 0, total / np.maximum(count, 1.0), 1.0)
    weight = 1.0 / (score + score.min() + 1e-9)
    return tuple((weight / weight.sum()).tolist())
