"""What an optimizer changes, and by how much each weight moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor


@dataclass
class State:
    """What training changes: weights and the two moments (K, P), and how many updates each member has made (K, 1)."""

    weights: Tensor
    first: Tensor
    second: Tensor
    updates: Tensor  # (K, 1) float64
    scaled: bool = field(default=False, init=False)  # of SGD-SaI: all scales are known, and the device is not asked


class Multipliers(NamedTuple):
    """Of the learning rate, of the weight decay and of eps, (P,) each; of eps (1,) where it is the same for all.

    `each` (n, 3) are the same three for each of n weights of the layout, float64, on the CPU; None where nobody reads
    them.
    """

    lr: Tensor
    decay: Tensor
    eps: Tensor
    each: Tensor | None
