"""What the errors of a backtest change in an interval, the same for every kind of fit."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MOST_SQUARE = 25.0  # of an error in units of its spread: one miss beyond it counts no more


def calibration(
    errors: Iterable[tuple[str, float]], *, prior_cuts: float = 2.0, tightest: float = 0.7, widest: float
) -> float:
    """Return the factor by which held-out errors scale the spread.

    Each cut counts alike, since errors within a cut share the noise of what was fitted.

    Parameters
    ----------
    errors : pairs of str and float
        The cut of each held-out loss, and its error in units of the spread.
    prior_cuts : float
        Cuts that the spread as it is counts for.
    tightest, widest : float
        Bounds of the factor.

    Examples
    --------
    >>> calibration([], widest=2.0)
    1.0
    >>> calibration([("largest", 3.0), ("longest", 3.0)], widest=3.0) == 5**0.5
    True
    """
    by_cut: dict[str, list[float]] = {}
    for cut, error in errors:
        by_cut.setdefault(cut, []).append(min(error**2, MOST_SQUARE))
    ratio = (prior_cuts + sum(float(np.mean(v)) for v in by_cut.values())) / (prior_cuts + len(by_cut))
    return float(np.clip(np.sqrt(ratio), tightest, widest))
