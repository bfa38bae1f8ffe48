"""One table: (kind of weight, width and depth ratio) -> init std, learning rate, weight decay, eps, multiplier.

`m` is width / base_width, `l` depth / base_depth. At m = l = 1 every parametrization is the standard one.

| | sp | mup_simple | mup | completep |
|---|---|---|---|---|
| hidden: rate | 1 | 1/m | 1/m | 1/m |
| readout: rate, output | 1, 1 | 1/m, 1 | 1, 1/m | 1, 1/m |
| residual branch: output | 1 | 1 | 1 | 1/l |
| residual projection: std | 1/sqrt(2 depth) | 1/sqrt(2 depth) | 1/sqrt(2 depth) | 1/sqrt(2 base_depth) |
| eps: in blocks, outside | 1, 1 | 1, 1 | 1, 1 | 1/(m l), 1/m |

The rates are Adam's. Those of other optimizers follow from the same demand, that an update changes every activation by
as much at every width (2310.17813), and so do not depend on what the optimizer scales gradients by:

| | sp | mup_simple, completep | mup |
|---|---|---|---|
| muon: rate of hidden | 1 | 1/sqrt(m) | 1/sqrt(m) |
| sgd_sai: rate of hidden, of all else | 1, 1 | refused | 1/m, sqrt(m) |

Muon's steps are orthogonal matrices whose entries are as large as Adam's: their spectral norm grows as sqrt(m), where
that of Adam's, which are nearly of rank one, grows as m. SGD-SaI multiplies gradients by the root of a tensor's size, m
for a matrix and sqrt(m) for all else; muP's gradients fall as 1/m, those of the logits' bias do not.

Hidden weights start at 1/sqrt(fan_in) in all, which is sigma_base / sqrt(m). Weight decay does not go with the rate, so
what other conventions write as decay x m beside rate / m is 1 here. Attention logits are scaled by 1/sqrt(d_head)
everywhere, since heads have a fixed size and grow in number.

Sources: muP 2203.03466 (Adam column), CompleteP 2505.01618 (alpha = 1), muParam (simple) and independent decay
2309.14322, GPT-2's residual scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from proxytrain.config.schema import Model, Parametrization

KINDS = ("embedding", "hidden", "residual", "readout", "gain", "bias")


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


def rule(
    kind: str,
    parametrization: Parametrization,
    optimizer: str = "adamw",
    /,
    *,
    width: int,
    fan_in: int,
    depth: int,
    block: bool,
) -> Rule:
    """The row of the table for one weight.

    Parameters
    ----------
    kind : embedding, hidden (matrices inside a block), residual (those that write into the residual stream),
        readout, gain (all vectors in blocks, and norms), bias (of the logits); the last two have an init of their own
    optimizer : its name
    width, fan_in, depth : of the model, of the weight, number of blocks
    block : whether the weight lies in a block
    """
    p = parametrization
    m = 1.0 if p.name == "sp" else width / p.base_width
    row = _adam(kind, p, m, fan_in, depth, block)
    matrix = kind in ("hidden", "residual")
    if optimizer == "muon" and matrix:
        return replace(row, lr=1 / math.sqrt(m))
    if optimizer == "sgd_sai":
        return replace(row, lr=1 / m if matrix else 1.0 if kind == "bias" else math.sqrt(m))
    return row


def scales(model: Model, parametrization: Parametrization) -> Scales:
    """The multipliers of a model's forward pass."""
    size = {"width": model.width, "fan_in": model.width, "depth": model.depth}
    readout = rule("readout", parametrization, **size, block=False)
    return Scales(readout.multiplier, rule("residual", parametrization, **size, block=True).multiplier)


def _adam(kind: str, p: Parametrization, m: float, fan_in: int, depth: int, block: bool) -> Rule:
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
