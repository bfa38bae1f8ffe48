"""Curves as a law can read them: each once, without spikes, divergence and the lag of smoothing. All is noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proxytrain.errors import Refusal
from proxytrain.fit.curves.curve import Curve
from proxytrain.fit.curves.smoothing import undone
from proxytrain.fit.curves.spikes import sound

SAME = 1e-3  # of log loss: copies may have been rounded
LEAST_ROWS = 20  # that must agree
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


def _repeats(curve: Curve, other: Curve) -> bool:
    if curve.params != other.params or curve.updates != other.updates or len(curve.step) != len(other.step):
        return False
    if len(curve.step) < LEAST_ROWS or (curve.step != other.step).any():
        return False
    if np.abs(curve.loss[:LEAST_ROWS] / other.loss[:LEAST_ROWS] - 1).max() > SAME:  # soon seen of most
        return False
    a, b = np.log(curve.loss), np.log(other.loss)
    apart = np.abs(a - b).max()
    noise = float(np.median(np.abs(np.diff(a, 2)))) / np.sqrt(6.0)
    return bool(apart == 0 or (apart < SAME and apart < CLOSER * noise))
