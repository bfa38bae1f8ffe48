"""The target's whole curve, by laws of whole curves that are fitted to some of the sweep's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proxytrain.arrays import Array
from proxytrain.sweep import main as sweep
from proxytrain.sweep import results as outcomes
from proxytrain.sweep.request import Request

POINTS = 120  # that are drawn, evenly in tokens and in their logarithm each


@dataclass(frozen=True)
class Course:
    """Loss of the target after `tokens` (n,), with pointwise bands, thinned for drawing."""

    tokens: Array
    loss: Array
    low: Array
    high: Array
    level: float
    note: str
    law: str
    curves: int
    shift: float  # log of validation loss over training loss


def course(asked: Request) -> Course:
    """The curve that the target should take.

    Raises
    ------
    Refusal
        If the curves cannot tell.
    RequestError
        If one of them cannot be read.
    """
    assert asked.target
    assert asked.target_record
    rates = outcomes.target_rates(asked.target)
    fitted = sweep.curve_fit(asked)
    n = float(outcomes.target_params(asked.target_record, None))
    p = fitted.predict(rates, params=n)
    last = len(p.loss) - 1
    at = np.unique(np.r_[np.geomspace(1, last + 1, POINTS) - 1, np.linspace(0, last, POINTS)].astype(int))
    tokens = (at + 1) * asked.target.recipe.batch_tokens
    law, curves = fitted.main.law.name, fitted.data.curves
    shift = fitted.ratio.at(n)[0] if fitted.ratio else 0.0
    return Course(tokens, p.loss[at], p.low[at], p.high[at], p.level, p.note, law, curves, float(shift))
