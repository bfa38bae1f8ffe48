"""AdamW over a pack: one pass over the flat buffers (K, P), with a rate, a decay and a clip a member.

Independent weight decay (2309.14322): w <- w - lr_t * u - (lr_t / lr_peak) * decay * w. (torch's fused AdamW has one
rate for all rows.)
"""

from __future__ import annotations

from dataclasses import dataclass

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


def rates(weights: tuple[Weight, ...], model: Model, parametrization: Parametrization) -> tuple[Tensor, Tensor]:
    """Multipliers (P,) of the learning rate and of the weight decay, from the parametrization's table."""
    lr, decay = torch.zeros(flat_size(weights)), torch.zeros(flat_size(weights))
    for w in weights:
        row = rule(w.kind, parametrization, width=model.width, fan_in=w.shape[0], depth=model.depth)
        lr[w.offset : w.offset + w.size] = row.lr
        decay[w.offset : w.offset + w.size] = row.decay
    return lr, decay


@torch.no_grad()
def adamw(
    state: State,
    grad: Tensor,
    optimizer: Optimizer,
    *,
    lr: Tensor,
    decay: Tensor,
    clip: Tensor,
    lr_multiplier: Tensor,
    decay_multiplier: Tensor,
) -> Tensor:
    """One update of all members, in place; returns the gradient norms (K, 1) before clipping. `grad` serves as scratch.

    Parameters
    ----------
    grad : (K, P)
    lr, decay, clip : (K, 1); decay is already times lr / peak; clip is inf for none
    lr_multiplier, decay_multiplier : (P,)
    """
    b1, b2 = optimizer.beta1, optimizer.beta2
    norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
    grad.mul_(torch.clamp(clip / norm, max=1.0))
    state.updates += 1
    state.first.lerp_(grad, 1 - b1)
    state.second.mul_(b2).addcmul_(grad, grad, value=1 - b2)
    scale1 = (lr / (1 - b1**state.updates)).float()
    scale2 = (1 - b2**state.updates).rsqrt().float()
    step = torch.sqrt(state.second, out=grad).mul_(scale2).add_(optimizer.eps)
    step = torch.div(state.first, step, out=grad).mul_(scale1)
    state.weights.mul_(1 - decay.float() * decay_multiplier)
    state.weights.sub_(step.mul_(lr_multiplier))
    return norm
