"""AdamW over a pack: one pass over the flat buffers (K, P), with a rate, a decay and a clip a member.

Independent weight decay (2309.14322): w <- w - lr_t * u - (lr_t / lr_peak) * decay * w. (torch's fused AdamW has one
rate for all rows.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from proxytrain.config import Model, Optimizer, Parametrization
from proxytrain.layout import Weight, flat_size
from proxytrain.parametrization import rule


@dataclass
class State:
    """What training changes: weights and the two moments (K, P), and how many updates each member has made (K, 1)."""

    weights: Tensor
    first: Tensor
    second: Tensor
    updates: Tensor  # (K, 1) float64


class Multipliers(NamedTuple):
    """Of the learning rate, of the weight decay and of eps, (P,) each; of eps (1,) where it is the same for all."""

    lr: Tensor
    decay: Tensor
    eps: Tensor


def multipliers(
    weights: tuple[Weight, ...], model: Model, parametrization: Parametrization, device: torch.device | str = "cpu"
) -> Multipliers:
    """What the parametrization's table says of every weight."""
    lr, decay, eps = torch.zeros(3, flat_size(weights)).unbind()
    eps.fill_(1.0)  # of the gaps too, whose step is 0 / eps
    for w in weights:
        size = {"width": model.width, "fan_in": w.shape[0], "depth": model.depth}
        row = rule(w.kind, parametrization, **size, block="." in w.name)
        at = slice(w.offset, w.offset + w.size)
        lr[at], decay[at], eps[at] = row.lr, row.decay, row.eps
    eps = eps[:1] if bool((eps == eps[0]).all()) else eps
    return Multipliers(lr.to(device), decay.to(device), eps.to(device))


@torch.no_grad()
def adamw(
    state: State,
    grad: Tensor,
    optimizer: Optimizer,
    *,
    lr: Tensor,
    decay: Tensor,
    clip: Tensor,
    by: Multipliers,
) -> Tensor:
    """One update of all members, in place; returns the gradient norms (K, 1) before clipping. `grad` serves as scratch.

    Parameters
    ----------
    grad : (K, P)
    lr, decay, clip : (K, 1); decay is already times lr / peak; clip is inf for none
    by : the parametrization's multipliers
    """
    b1, b2 = optimizer.beta1, optimizer.beta2
    norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
    grad.mul_(torch.clamp(clip / norm, max=1.0))
    state.updates += 1
    state.first.lerp_(grad, 1 - b1)
    state.second.mul_(b2).addcmul_(grad, grad, value=1 - b2)
    scale1 = (lr / (1 - b1**state.updates)).float()
    scale2 = (1 - b2**state.updates).rsqrt().float()
    step = torch.sqrt(state.second, out=grad).mul_(scale2).add_(optimizer.eps * by.eps)
    step = torch.div(state.first, step, out=grad).mul_(scale1)
    state.weights.mul_((decay.float() * by.decay).neg_().add_(1))
    state.weights.sub_(step.mul_(by.lr))
    return norm
