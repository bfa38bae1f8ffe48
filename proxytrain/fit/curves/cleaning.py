"""Curves as a law can read them: each once, without spikes, divergence and the lag of smoothing. All is noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal
from proxytrain.fit.curves.curve import Curve
from proxytrain.fit.curves.smoothing import undone
from proxytrain.fit.curves.spikes import sound

SAME_CURVE_LOSS = 1e-3  # of log loss: copies may have been rounded
LEAST_EQUAL_ROWS = 20  # that must agree
SIZE_RISE = 0.01  # of log loss, from the smallest to the largest size
OFF_LAW = 0.04  # of log loss, from the law of all runs
CLOSER = 0.2  # SDs of a row: seeds lie farther apart


@dataclass(frozen=True)
class Cleaned:
    """Curves to fit, notes on what was left out or undone, and the SD of log loss that undoing leaves unsure."""

    curves: list[Curve]
    notes: list[str]
    unsure: float


def cleaned(curves: Sequence[Curve]) -> Cleaned:
    """Return curves as a law can read them.

    Raises
    ------
    Refusal
        No curve is left, or smoothing hides too much.
    """
    single, copies = once(curves)
    kept, left_out = sound(single)
    if not kept:
        raise Refusal(f"curves: no curve is left to fit; {left_out[-1]}. Fit runs that do not diverge.")
    out, smoothed, unsure = undone(kept)
    return Cleaned(out, [*smoothed, *copies, *left_out], unsure)


def once(curves: Sequence[Curve]) -> tuple[list[Curve], list[str]]:
    """Return each curve once, and notes on those that repeat another one, exactly or rounded."""
    out: list[Curve] = []
    notes = []
    for c in curves:
        same = next((o for o in out if _repeats(c, o)), None)
        if same is None:
            out.append(c)
        else:
            notes.append(f"left out {c.name}: its losses repeat those of {same.name}")
    return out, notes


def refuse_rise_with_size(curves: Sequence[Curve]) -> None:
    """Refuse runs of one length whose losses rise with their size, under every schedule.

    Raises
    ------
    Refusal
        Sizes may belong to other runs.
    """
    ends: dict[tuple[int, bytes], dict[float, list[float]]] = {}
    for c in curves:
        if c.params:
            key = c.updates, np.round(c.shape(), 2).tobytes()
            late = np.log(c.loss[c.step >= 0.9 * c.updates])
            ends.setdefault(key, {}).setdefault(c.params, []).append(float(late.mean()) if len(late) else np.nan)
    rises = []
    for by_size in ends.values():
        if len(by_size) > 1:
            small, large = min(by_size), max(by_size)
            rises.append((float(np.mean(by_size[large]) - np.mean(by_size[small])), small, large))
    if rises and min(r for r, _, _ in rises) > SIZE_RISE:
        rise, small, large = max(rises)
        raise Refusal(
            f"params: losses rise with size under every schedule, by {100 * rise:.1f}% from {small:.3g} to "
            f"{large:.3g} parameters. Check params in index.csv, and the learning rates of the largest runs."
        )


def outliers(names: Sequence[str], residuals: Sequence[Array]) -> list[str]:
    """Return notes on runs that lie far off the law of all: mean residuals of log loss (M,) of each run."""
    means = np.array([float(np.median(r)) for r in residuals])
    usual = 1.4826 * float(np.median(np.abs(means - np.median(means))))
    notes = []
    for name, mean in zip(names, means):
        if len(means) >= 4 and abs(mean) > max(OFF_LAW, 8 * usual):
            bits = " (1.44 times: bits in place of nats?)" if abs(mean - np.log(1 / np.log(2))) < 0.1 else ""
            notes.append(
                f"SUSPICIOUS: losses of {name} are {np.exp(mean):.2f} times those of the law of all runs{bits}; check "
                "the unit of its loss, its params, steps and rates, or leave it out"
            )
    return notes


def _repeats(curve: Curve, other: Curve) -> bool:
    if curve.params != other.params or curve.updates != other.updates or len(curve.step) != len(other.step):
        return False
    if len(curve.step) < LEAST_EQUAL_ROWS or (curve.step != other.step).any():
        return False
    first = curve.loss[:LEAST_EQUAL_ROWS] / other.loss[:LEAST_EQUAL_ROWS] - 1
    if np.abs(first).max() > SAME_CURVE_LOSS:  # soon seen of most
        return False
    a, b = np.log(curve.loss), np.log(other.loss)
    apart = np.abs(a - b).max()
    noise = float(np.median(np.abs(np.diff(a, 2)))) / np.sqrt(6.0)
    return bool(apart == 0 or (apart < SAME_CURVE_LOSS and apart < CLOSER * noise))
