"""One table: (kind of weight, width ratio) -> init std, learning rate, weight decay, multiplier.

`m` is width / base_width. At m = 1 every parametrization is the standard one. Hidden weights start at 1/sqrt(fan_in) in
both, which is sigma_base / sqrt(m); those that write into the residual stream are divided by sqrt(2 * depth).
Attention logits are scaled by 1/sqrt(d_head) everywhere, since heads have a fixed size and grow in number.

Sources: muP 2203.03466 (Adam column), GPT-2's residual scale, independent decay 2309.14322.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from proxytrain.config import Parametrization

KINDS = ("embedding", "hidden", "residual", "readout", "gain")


@dataclass(frozen=True)
class Rule:
    """What one kind of weight gets."""

    std: float  # of the initial values
    lr: float  # times the base learning rate
    decay: float  # times the weight decay
    multiplier: float  # of its output, in the forward pass


def rule(kind: str, parametrization: Parametrization, *, width: int, fan_in: int, depth: int) -> Rule:
    """The row of the table for one weight.

    Parameters
    ----------
    kind : embedding, hidden (matrices inside a block), residual (those that write into the residual stream),
        readout, gain (all vectors: norms, gates, taps, biases; their init is their own)
    width, fan_in, depth : of the model, of the weight, number of blocks
    """
    p = parametrization
    m = width / p.base_width if p.name == "mup" else 1.0
    if kind == "embedding":
        return Rule(p.embedding_std, 1.0, 0.0, 1.0)
    if kind == "hidden":
        return Rule(1 / math.sqrt(fan_in), 1 / m, 1.0, 1.0)
    if kind == "residual":
        return Rule(1 / math.sqrt(fan_in * 2 * depth), 1 / m, 1.0, 1.0)
    if kind == "readout":
        return Rule(p.readout_std / math.sqrt(fan_in / m), 1.0, 0.0, 1 / m)
    return Rule(0.0, 1.0, 0.0, 1.0)
