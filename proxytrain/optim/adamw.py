"""AdamW (1711.05101); on a CPU the kernel in `kernels.cpu` does the same in one pass over memory."""

from __future__ import annotations

import torch
from torch import Tensor

from proxytrain.config.schema import AdamW
from proxytrain.optim.state import Multipliers, State


def adamw(state: State, grad: Tensor, optimizer: AdamW, scales: tuple[Tensor, ...], by: Multipliers) -> Tensor:
    """Steps (K, P) in place of the gradients (1711.05101)."""
    state.first.lerp_(grad, 1 - optimizer.beta1)
    state.second.mul_(optimizer.beta2).addcmul_(grad, grad, value=1 - optimizer.beta2)
    step = torch.sqrt(state.second, out=grad).mul_(scales[1]).add_(optimizer.eps * by.eps)
    return torch.div(state.first, step, out=grad).mul_(scales[0])
