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

    With fewer than eight hold-out cells the laws count alike; else by the inverse of their mean squared error.
    """
    errors: dict[str, list[float]] = {law: [] for law in laws}
    seen = set()
    for by_law, held, allowed in outcomes:
        if not all(law in by_law for law in laws):
            continue
        common = allowed & np.all([np.isfinite(by_law[law]) for law in laws], axis=0)
        seen.update(held[common].tolist())
        for law in laws:
            errors[law] += by_law[law][common].tolist()
    if len(laws) == 1 or len(seen) < FEW_CELLS:
        return tuple(1.0 / len(laws) for _ in laws)
    inverse = np.array([1.0 / (np.mean(np.square(errors[law])) + 1e-8) for law in laws])
    return tuple((inverse / inverse.sum()).tolist())
