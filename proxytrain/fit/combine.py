"""Which law, or how much of each: decided by hold-out errors alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FEW_CELLS = 8


def combine(
    laws: Sequence[str], outcomes: Sequence[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]
) -> tuple[float, ...]:
    """Weights of the laws, in their order, summing to one.

    Parameters
    ----------
    laws : names
    outcomes : of each cut: errors by law (h,), the runs held out (h,), and which of them may be looked at (h,)

    With fewer than eight hold-out cells the laws count alike; else by the inverse of their mean squared error (averaged
    over cuts) plus that of the best: a law that was lucky in a few cells does not take everything.
    """
    squares: list[list[float]] = []
    seen: set[int] = set()
    for by_law, held, allowed in outcomes:
        if not all(law in by_law for law in laws):
            continue
        common = allowed & np.all([np.isfinite(by_law[law]) for law in laws], axis=0)
        if common.any():
            seen.update(held[common].tolist())
            squares.append([float(np.mean(by_law[law][common] ** 2)) for law in laws])
    if len(laws) == 1 or len(seen) < FEW_CELLS:
        return tuple(1.0 / len(laws) for _ in laws)
    mean = np.mean(squares, axis=0)
    inverse = 1.0 / (mean + mean.min() + 1e-9)
    return tuple((inverse / inverse.sum()).tolist())
