"""Losses that were smoothed before they were logged: found by how their residuals hang together, and undone.

Losses of batches are white noise about a trend, so their differences have an autocorrelation of -1/2 at one row. A mean
over the last m rows moves that to m rows. An exponential mean (weights fall by r per row) spreads it: -(1 - r) / 2 r^j.
Smoothed losses lag behind their learning rate; the fit would read that lag as a worse end of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal
from proxytrain.fit.curves.curve import BURN, Curve, own_from

LEAST_LOGGED_ROWS = 30  # after warm-up, of a curve that tells how it was logged; and of all that were logged alike
LEAST_POOLED = 500
SHORT_MEAN = 4  # rows: a mean over fewer does no harm
SMOOTH = -0.35  # summed autocorrelation of differences up to SHORT_MEAN rows; -0.5 for white noise, shorter means
LOCAL = 51  # rows of the moving mean that differences are taken from
SMOOTHER = 0.2  # at one row: smoother than any mean can be
PIECE = 20  # rows between jumps of the rate that have a trend of their own
JUMP = 0.05  # of the peak, from row to row
LONGEST_LAG = 1 / 6  # share of a run that a mean may lag behind
MOVING = -0.3  # autocorrelation of differences at the length of a moving mean: -0.5
UNSURE = {"exponential": 0.25, "moving": 0.5, "unknown": 1.0}  # share of what the lag moves that widens the interval


@dataclass(frozen=True)
class Smoothing:
    """How losses were smoothed: `kind` "exponential", "moving" or "unknown", and the mean age of a loss in updates."""

    kind: str
    lag: float


def undone(curves: Sequence[Curve]) -> tuple[list[Curve], list[str], float]:
    """Return curves without the lag of a smoothing, notes that name it, and the SD of log loss that it leaves unsure.

    Raises
    ------
    Refusal
        The losses lag behind by too large a share of their run.
    """
    out, notes, moved = list(curves), [], [0.0]
    differences = [_autocorrelation(c) for c in curves]
    rows = [int((c.step[_fitted_rows(c)] >= first).sum()) for c, first in zip(curves, own_from(curves))]
    for gap in sorted({_gap(c) for c in curves}):
        group = [i for i, c in enumerate(curves) if _gap(c) == gap and len(differences[i]) and rows[i]]
        smooth = _smooth(group, rows, differences)
        if not smooth:
            continue
        found = _kind([curves[i] for i in smooth], [differences[i] for i in smooth], gap)
        for i in smooth:
            c = curves[i]
            if found.lag > LONGEST_LAG * c.updates:
                raise Refusal(
                    f"{c.name}: its losses are smoothed over about {found.lag:,.0f} of {c.updates:,} updates. "
                    "Log the loss of each batch, without a mean over time."
                )
            out[i] = _without_lag(c, found)
            moved.append(UNSURE[found.kind] * _effect(c, found.lag))
        names = ", ".join(curves[i].name for i in smooth[:6]) + (", ..." if len(smooth) > 6 else "")
        notes.append(_note(found, names, len(smooth), len(curves), gap))
    return out, notes, max(moved)


def _note(found: Smoothing, names: str, count: int, of: int, gap: float) -> str:
    how = {
        "exponential": f"an exponential mean with a weight of about {1 / (found.lag + 1):.2g} per update; undone",
        "moving": f"a moving mean over about {2 * found.lag + 1:,.0f} updates; read at the middle of its window",
        "unknown": f"over about {found.lag:,.0f} updates, in a way that cannot be undone",
    }[found.kind]
    return (
        f"SMOOTHED: losses of {count} of {of} curves ({names}) are too smooth to be those of batches: {how}. The "
        "interval is wider for it; log the loss of each batch instead"
    )


def _gap(curve: Curve) -> float:
    return float(np.median(np.diff(curve.step))) if len(curve.step) > 1 else 0.0


def _fitted_rows(curve: Curve) -> Array:
    return np.flatnonzero(curve.step > max(curve.warmup + 1, BURN * curve.step[-1]))


def _trend(curve: Curve, step: Array) -> Array:
    """Return (M, 5) what a loss follows locally: a power of time, the rate, powers of the sum of rates."""
    share = curve.lr / curve.lr.max()
    at = np.clip(step, 1, curve.updates).astype(int) - 1
    done = np.cumsum(share)[at] + 1.0
    return np.column_stack([np.ones(len(step)), np.log(at + 1.0), share[at], np.log(done), done**-0.4])


def _residual(y: Array, trend: Array, piece: Array) -> Array:
    """Return what a trend leaves of log losses (M,), estimated anew in each piece (M,) of a schedule."""
    out = y.copy()
    for k in np.unique(piece):
        here = piece == k
        scaled = trend[here] / np.sqrt((trend[here] ** 2).sum(axis=0) + 1e-300)
        out[here] = y[here] - scaled @ np.linalg.lstsq(scaled, y[here], rcond=1e-8)[0]
    return out


def _pieces(curve: Curve, step: Array) -> Array:
    """Return (M,) numbers of the stretches between jumps of the rate; -1 where they are short."""
    share = curve.lr[np.maximum(step, 1) - 1] / curve.lr.max()
    piece = np.cumsum(np.abs(np.diff(share, prepend=share[0])) > JUMP)
    return np.where(np.bincount(piece)[piece] >= PIECE, piece, -1)


def _autocorrelation(curve: Curve) -> Array:
    """Return the autocorrelation of differences of log-loss residuals, by rows from 0; empty where rows are few."""
    rows = _fitted_rows(curve)
    if len(rows) < LEAST_LOGGED_ROWS:
        return np.zeros(0)
    step = curve.step[rows]
    piece = _pieces(curve, step)
    d = np.diff(_residual(np.log(curve.loss[rows]), _trend(curve, step), piece))
    d = d[(piece[1:] >= 0) & (np.diff(piece) == 0)]
    if len(d) < LEAST_LOGGED_ROWS:
        return np.zeros(0)
    most = 4 * 1.4826 * float(np.median(np.abs(d)))
    d = np.clip(d, -most, most)
    one = np.ones(min(LOCAL, len(d)))
    d = d - np.convolve(d, one, "same") / np.convolve(np.ones(len(d)), one, "same")
    square = float(d @ d)
    if not square > len(d) * 1e-20:  # a curve without noise
        return np.zeros(0)
    power = np.abs(np.fft.rfft(d, 2 * len(d))) ** 2
    return np.asarray(np.fft.irfft(power)[: max(len(d) // 2, SHORT_MEAN + 1)] / square)


def _smooth(group: list[int], rows: list[int], found: list[Array]) -> list[int]:
    """Return which curves of a group that was logged alike are smoothed: together, or one by itself.

    `rows` of each curve are its own: those of a shared trunk count once.
    """
    near = {i: float(found[i][1 : SHORT_MEAN + 1].sum()) for i in group}
    total = sum(rows[i] for i in group)
    if total < LEAST_POOLED:
        return []
    pooled = sum(rows[i] * near[i] for i in group) / total
    if pooled > SMOOTH + 2 / np.sqrt(total):
        return [i for i in group if near[i] > SMOOTH - 2 / np.sqrt(rows[i])]
    return [i for i in group if rows[i] >= LEAST_POOLED and near[i] > SMOOTH + 4 / np.sqrt(rows[i])]


def _kind(curves: list[Curve], found: list[Array], gap: float) -> Smoothing:
    shortest = min(len(f) for f in found)
    pooled = np.average([f[:shortest] for f in found], axis=0, weights=[len(_fitted_rows(c)) for c in curves])
    at = int(np.argmin(pooled[SHORT_MEAN:])) + SHORT_MEAN
    near = np.arange(at - 1, min(at + 2, shortest))
    if pooled[1] < SMOOTHER and pooled[near].sum() < MOVING:
        weight = np.minimum(pooled[near], 0)
        return Smoothing("moving", (gap * float(near @ weight / weight.sum()) - 1) / 2)
    ages = np.geomspace(gap, max(c.updates for c in curves) / 2, 100)
    age = float(ages[int(np.argmin([_misfit(curves, a, gap) for a in ages]))])
    return Smoothing("unknown" if pooled[1] >= SMOOTHER else "exponential", age)


def _misfit(curves: list[Curve], age: float, gap: float) -> float:
    """Return log likelihood times -2 of a time constant, under which losses, once undone, are a trend with noise.

    Runs of one size share the trend: one of its own for each would take up what a long mean leaves.
    """
    total = 0.0
    for size in {c.params for c in curves}:
        raw, trends = [], []
        for c in curves:
            if c.params == size:
                rows = _fitted_rows(c)
                y, r = np.log(c.loss[rows]), np.exp(-np.diff(c.step[rows]) / age)
                raw.append((y[1:] - r * y[:-1]) / (1 - r))
                trends.append(_trend(c, c.step[rows[1:]]))
        y = np.concatenate(raw)
        left = _residual(y, np.concatenate(trends), np.zeros(len(y)))
        total += len(y) * np.log(max(float(left @ left), 1e-300) * (1 - np.exp(-gap / age)) ** 2)
    return total


def _without_lag(curve: Curve, found: Smoothing) -> Curve:
    if found.kind == "unknown":
        return curve
    if found.kind == "moving":
        every = max(1, round((2 * found.lag + 1) / _gap(curve)))  # windows that do not overlap
        keep = np.arange(len(curve.step))[::-1][::every][::-1]
        step = np.round(curve.step[keep] - found.lag).astype(int)
        return replace(curve, step=step[step > 0], loss=curve.loss[keep][step > 0])
    gap = np.diff(curve.step)
    r = np.exp(-gap / found.lag)
    raw = (curve.loss[1:] - r * curve.loss[:-1]) / (1 - r)
    one = np.exp(-1 / found.lag)
    age = one / (1 - one) - gap * r / (1 - r)  # mean age of the updates since the row before
    step = np.round(curve.step[1:] - age).astype(int)
    # The mean is not itself before it has seen enough, and a wide gap hides what was left out.
    keep = (raw > 0) & (raw < 20) & (curve.step[1:] > curve.step[0] + 2 * found.lag) & (gap <= 5 * _gap(curve))
    return replace(curve, step=step[keep], loss=raw[keep])


def _effect(curve: Curve, lag: float) -> float:
    """Return by how much log loss fell over one lag, in the later half of a run."""
    late = curve.step >= curve.updates / 2
    before = np.interp(curve.step[late] - lag, curve.step, np.log(curve.loss))
    return float(np.abs(np.mean(before - np.log(curve.loss[late]))))
