"""Stretches of a loss curve that no schedule explains: spikes, which are back soon, and divergence, which stays.

A spike is no capability: the stretch is left out. A run that diverges is left out whole, since what it did before is
the beginning of a run that was not trained like the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from proxytrain.arrays import Array
from proxytrain.fit.curves.curve import Curve

BEFORE = 25  # rows that a level is the median of
SPIKE_RISE = 0.04  # of log loss above the level, and SDs of a row: less is no spike
SDS = 4.0  # for the median of five rows
LONE_RISE, LONE_SDS = 0.15, 10.0  # for one row
SPIKE_BLOCKS, BLOCK_SDS = 20, 8.0  # for a slow rise, from the lowest of so many medians to the last one
LONGEST_SPIKE = 0.15  # share of a curve that a spike may last
MARGIN = 0.5  # of its length, left out after it: what is left of it decays slowly
RATE_ROSE = 1.02  # a rate that rises so much explains a loss that rises


@dataclass(frozen=True)
class Spike:
    """Between updates `start` and `end` the log loss lies up to `height` above its level before."""

    start: int
    end: int
    height: float


def find_spikes(curve: Curve) -> tuple[list[Spike], Spike | None]:
    """Return the spikes of a curve, and the rise that it does not come back from, if there is one."""
    first = int(np.searchsorted(curve.step, curve.warmup + 1))
    y, step = np.log(curve.loss[first:]), curve.step[first:]
    rate = curve.lr[np.maximum(step, 1) - 1]
    if len(y) < 20:
        return [], None
    noise, five = _noise(y), _median_of_five(y)
    far = len(y) // 20
    level, least = _levels(y, far), _least(rate, far + BEFORE)
    high = (five - level > max(SPIKE_RISE, SDS * noise)) & (y - level > max(SPIKE_RISE, SDS * noise) / 2)
    lone = y - level > max(LONE_RISE, LONE_SDS * noise)
    at = np.flatnonzero((high | lone) & (rate <= RATE_ROSE * least))
    spikes: list[Spike] = []
    back = 0
    for i in at:
        if i < back:
            continue
        ends = _back(y, five, i, level[i], noise)
        end = len(y) - 1 if ends is None else ends - 1
        found = Spike(int(step[i]), int(step[end]), float(y[i : end + 1].max() - level[i]))
        if ends is None or step[end] - step[i] > LONGEST_SPIKE * step[-1]:
            return spikes, found
        spikes.append(found)
        back = ends
    return spikes, _slow_rise(y, step, rate, noise)


def without_spikes(curve: Curve) -> tuple[Curve, list[Spike]]:
    """Return a curve without its spikes, and which they were."""
    spikes, _ = find_spikes(curve)
    if not spikes:
        return curve, []
    cut: dict[str, Array] = {}
    for steps, losses in (("step", "loss"), ("val_step", "val_loss")):
        at, loss = getattr(curve, steps), getattr(curve, losses)
        if at is not None:
            out = [(at >= s.start) & (at <= s.end + MARGIN * (s.end - s.start)) for s in spikes]
            keep = ~np.any(out, axis=0)
            if keep.any():
                cut |= {steps: at[keep], losses: loss[keep]}
    return replace(curve, **cut), spikes  # type: ignore[arg-type]


def sound(curves: Sequence[Curve]) -> tuple[list[Curve], list[str]]:
    """Return curves without spikes and without runs that diverge, and notes that name both."""
    kept, notes = [], []
    for curve in curves:
        _, rise = find_spikes(curve)
        if rise is not None:
            where = "to the end" if rise.end >= curve.step[-1] else f"to {rise.end:,}"
            notes.append(
                f"left out {curve.name}: it diverges, its loss is up to {100 * np.expm1(rise.height):.0f}% above its "
                f"level from update {rise.start:,} {where}"
            )
            continue
        clean, spikes = without_spikes(curve)
        kept.append(clean)
        for s in spikes[:3]:
            notes.append(
                f"left out updates {s.start:,} to {s.end:,} of {curve.name}: a spike, up to "
                f"{100 * np.expm1(s.height):.0f}% above its level"
            )
        if len(spikes) > 3:
            notes.append(f"left out {len(spikes) - 3} more spikes of {curve.name}")
    return kept, notes


def _slow_rise(y: Array, step: Array, rate: Array, noise: float) -> Spike | None:
    """Return where the loss starts to rise, by so little per row that no level shows it, and stays."""
    if len(y) < 5 * SPIKE_BLOCKS:
        return None
    blocks = [np.median(part) for part in np.array_split(y, SPIKE_BLOCKS)]
    starts = [part[0] for part in np.array_split(np.arange(len(y)), SPIKE_BLOCKS)]
    low = int(np.argmin(blocks))
    height = float(blocks[-1] - blocks[low])
    rose = rate[starts[-1]] > RATE_ROSE * rate[starts[low]]
    if rose or height < max(SPIKE_RISE, BLOCK_SDS * noise / np.sqrt(len(y) / SPIKE_BLOCKS)):
        return None
    return Spike(int(step[starts[low]]), int(step[-1]), height)


def _levels(y: Array, far: int) -> Array:
    """Return the level before each row: the median of some rows, just before it or `far` rows earlier, if lower."""
    padded = np.r_[np.full(BEFORE, np.nan), y[:-1]]
    windows = np.lib.stride_tricks.sliding_window_view(padded, BEFORE)[: len(y)]
    level = np.full(len(y), np.inf)
    level[5:] = np.nanmedian(windows[5:], axis=1)
    earlier = np.r_[np.full(far, np.inf), level[: len(y) - far]]
    return np.minimum(level, earlier)


def _least(rate: Array, rows: int) -> Array:
    """Return the least rate of each row and of the rows before it."""
    padded = np.r_[np.full(rows, np.inf), rate]
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, rows + 1).min(axis=1))


def _noise(y: Array) -> float:
    """Return the SD of a row about its neighbours, robust."""
    return 1.4826 * float(np.median(np.abs(np.diff(y, 2)))) / np.sqrt(6.0)


def _median_of_five(y: Array) -> Array:
    """Return the median of each row and the four that follow (fewer at the end)."""
    padded = np.r_[y, np.full(4, np.nan)]
    return np.asarray(np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1))


def _back(y: Array, five: Array, start: int, level: float, noise: float) -> int | None:
    """Return the first row from which on the loss is near its level again; None where it never is."""
    near = five[start:] - level < max(SPIKE_RISE / 4, noise)
    near &= y[start:] - level < max(SPIKE_RISE / 2, 3 * noise)
    return start + int(np.argmax(near)) if near.any() else None
