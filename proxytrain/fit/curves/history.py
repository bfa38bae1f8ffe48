"""A learning-rate schedule as a law needs it: where the rate changes, and how much progress was made by when.

A law of curves sums over all updates made so far, at every update: a double sum. A constant rate adds nothing to it, so
here only the changes are summed over, and a slow decay is cut into pieces of nearly equal rate. Pieces end wherever the
loss was observed, so nothing that is aggregated is still under way; a schedule that jumps at every update keeps every
update.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from proxytrain.arrays import Array

RATE_STEP = 1 / 128  # within a piece the rate changes by at most this share of the peak
RATE_RATIO = 0.08  # and by this share of itself, above a thousandth of the peak
TINY = 1e-12  # of the peak: a rate of zero
WARM = 8  # the first rise is cut so many times coarser: it is long past when the loss counts
CHUNK = 1 << 21  # elements of an (observations, changes) block


@dataclass(frozen=True)
class History:
    """A schedule in units of its peak (times `scale`), observed at M moments, with J changes of the rate.

    Attributes
    ----------
    step : (M,) updates made before each observation
    sum : (M,) sum of their rates
    now : (M,) rate of the last of them
    before, after : (J,) rate before and after each change
    rate : (J,) rate while it changes, and at its end where it jumps
    place : (J,) sum of rates before the change
    time : (J,) updates before the change
    end : (J,) updates before it is complete
    warm : (J,) changes of the first rise (warm-up)
    """

    step: Array
    sum: Array
    now: Array
    before: Array
    after: Array
    rate: Array
    place: Array
    time: Array
    end: Array
    warm: Array
    _count: Array  # updates of each piece, and their mean rate
    _rate: Array
    _at: Array  # pieces before each observation

    @classmethod
    def of(cls, lr: Array, step: Array, scale: float = 1.0) -> History:
        """Of learning rates (S,), one an update, observed after `step` (M,) updates (1 <= step <= S)."""
        share = np.maximum(lr / lr.max(), TINY)
        previous = np.r_[0.0, share[:-1]]
        top = first_rise(share)
        coarse = np.where(np.arange(len(lr)) <= top, WARM, 1)
        level = np.floor(np.cumsum(np.abs(share - previous) / (RATE_STEP * coarse)))
        ratio = np.abs(np.diff(np.log(np.maximum(np.r_[share[0], share], 1e-3))))
        finer = np.floor(np.cumsum(ratio / (RATE_RATIO * coarse)))
        new = np.flatnonzero((np.diff(level) != 0) | (np.diff(finer) != 0)) + 1
        jump = np.flatnonzero(np.abs(np.diff(share)) > RATE_STEP / 2) + 1  # an abrupt change is a piece of its own
        edge = np.unique(np.r_[0, top + 1, new, jump, jump + 1, step, len(lr)])
        edge = edge[edge <= len(lr)]
        start, end = edge[:-1], edge[1:]
        total = np.r_[0.0, np.cumsum(share)]
        weight = np.abs(share - previous) + 1e-300
        whole = np.add.reduceat(weight, start)
        place = np.add.reduceat(weight * total[:-1], start) / whole
        rate = np.add.reduceat(weight * share, start) / whole
        time = np.add.reduceat(weight * np.arange(len(lr)), start) / whole
        at = np.searchsorted(edge, step)
        before, after = previous[start], share[end - 1]
        moves = before != after
        return cls(
            step=np.asarray(step),
            sum=scale * total[step],
            now=scale * after[at - 1],
            before=scale * before[moves],
            after=scale * after[moves],
            rate=scale * rate[moves],
            place=scale * place[moves],
            time=time[moves],
            end=end[moves],
            warm=start[moves] <= top,
            _count=end - start,
            _rate=scale * np.maximum((total[end] - total[start]) / (end - start), TINY),
            _at=at,
        )

    def progress(self, q: float) -> tuple[Array, Array]:
        """Sum of rate^q over the updates made, (M,), and its derivative by q."""
        piece = self._count * self._rate**q
        return np.cumsum(piece)[self._at - 1], np.cumsum(piece * np.log(self._rate))[self._at - 1]

    def ages(self, now: Array, then: Array) -> Iterator[tuple[slice, Array, Array]]:
        """Some observations at a time: which, `now - then` (m, J) of the changes made by then, and which those are.

        `now` (M,) and `then` (J,) are positions on one axis, of summed rates or of updates; later changes have age 0.
        """
        rows = max(1, CHUNK // max(len(then), 1))
        for first in range(0, len(now), rows):
            part = slice(first, first + rows)
            made = self.end[None, :] <= self.step[part, None]
            yield part, np.where(made, np.maximum(now[part, None] - then[None, :], 0.0), 0.0), made


def first_rise(share: Array) -> int:
    """The update that ends the first rise."""
    falls = np.flatnonzero(np.diff(share) < -1e-9)
    peak = int(np.argmax(share >= 1 - 1e-9))
    return min(peak, int(falls[0])) if len(falls) else peak


def nodes(lr: Array) -> Array:
    """A few hundred updates, from 1 to S, between which the loss may be interpolated linearly: (n,)."""
    updates = len(lr)
    change = np.abs(np.diff(lr, prepend=0.0))
    way = np.cumsum(change) / change.sum()
    jumps = np.argsort(-change, kind="stable")[:20]
    jumps = jumps[change[jumps] > lr.max() / 64]
    every = np.concatenate(
        [
            np.geomspace(1, updates, 120).round(),
            np.linspace(1, updates, 120).round(),
            np.searchsorted(way, np.linspace(0, 1, 150)) + 1.0,  # where the rate changes
            jumps,
            (jumps[:, None] + np.geomspace(1, updates, 40).round()).ravel(),
            [updates],
        ]
    ).astype(int)
    return np.unique(every[(every >= 1) & (every <= updates)])
