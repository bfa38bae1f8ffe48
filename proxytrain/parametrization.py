"""One table: (kind of weight, width and depth ratio) -> init std, learning rate, weight decay, eps, multiplier.

`m` is width / base_width, `l` depth / base_depth. At m = l = 1 every parametrization is the standard one.

| | sp | mup_simple | mup | completep |
|---|---|---|---|---|
| hidden: rate | 1 | 1/m | 1/m | 1/m |
| readout: rate, output | 1, 1 | 1/m, 1 | 1, 1/m | 1, 1/m |
| residual branch: output | 1 | 1 | 1 | 1/l |
| residual projection: std | 1/sqrt(2 depth) | 1/sqrt(2 depth) | 1/sqrt(2 depth) | 1/sqrt(2 base_depth) |
| eps: in blocks, outside | 1, 1 | 1, 1 | 1, 1 | 1/(m l), 1/m |

Hidden weights start at 1/sqrt(fan_in) in all, which is sigma_base / sqrt(m). Weight decay does not go with the rate, so
what other conventions write as decay x m beside rate / m is 1 here. Attention logits are scaled by 1/sqrt(d_head)
everywhere, since heads have a fixed size and grow in number.

Sources: muP 2203.03466 (Adam column), CompleteP 2505.01618 (alpha = 1), muParam (simple) and independent decay
2309.14322, GPT-2's residual scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from proxytrain.config import Model, Parametrization

KINDS = ("embedding", "hidden", "residual", "readout", "gain")


@dataclass(frozen=True)
class Rule:
    """What one kind of weight gets."""

    std: float  # of the initial values
    lr: float  # times the base learning rate
    decay: float  # times the weight decay
    eps: float  # times Adam's eps
    multiplier: float  # of its output, in the forward pass


class Scales(NamedTuple):
    """Multipliers of the forward pass: of the logits, and of what a block adds to the residual stream."""

    readout: float
    branch: float


def rule(kind: str, parametrization: Parametrization, *, width: int, fan_in: int, depth: int, block: bool) -> Rule:
    """The row of the table for one weight.

    Parameters
    ----------
    kind : embedding, hidden (matrices inside a block), residual (those that write into the residual stream),
        readout, gain (all vectors: norms, gates, taps, biases; their init is their own)
    width, fan_in, depth : of the model, of the weight, number of blocks
    block : whether the weight lies in a block
    """
    p = parametrization
    m = 1.0 if p.name == "sp" else width / p.base_width
    complete = p.name == "completep"
    deeper = depth / p.base_depth if complete else 1.0
    eps = (1 / (m * deeper) if block else 1 / m) if complete else 1.0
    if kind == "embedding":
        return Rule(p.embedding_std, 1.0, 0.0, eps, 1.0)
    if kind == "hidden":
        return Rule(1 / math.sqrt(fan_in), 1 / m, 1.0, eps, 1.0)
    if kind == "residual":
        return Rule(1 / math.sqrt(fan_in * 2 * depth / deeper), 1 / m, 1.0, eps, 1 / deeper)
    if kind == "readout" and p.name == "mup_simple":
        return Rule(p.readout_std / math.sqrt(fan_in), 1 / m, 0.0, 1.0, 1.0)
    if kind == "readout":
        return Rule(p.readout_std / math.sqrt(fan_in / m), 1.0, 0.0, eps, 1 / m)
    return Rule(0.0, 1.0, 0.0, eps, 1.0)


def scales(model: Model, parametrization: Parametrization) -> Scales:
    """The multipliers of a model's forward pass."""
    size = {"width": model.width, "fan_in": model.width, "depth": model.depth}
    readout = rule("readout", parametrization, **size, block=False)
    return Scales(readout.multiplier, rule("residual", parametrization, **size, block=True).multiplier)
