"""SGD with momentum, the rate of each tensor scaled once, by its first gradient (2412.11768)."""

from __future__ import annotations

import torch
from torch import Tensor

from proxytrain.config.schema import SGDSaI
from proxytrain.model.layout import Weight
from proxytrain.optim.state import State
from proxytrain.optim.views import tensors


def sgd_sai(state: State, grad: Tensor, optimizer: SGDSaI, weights: tuple[Weight, ...], lr: Tensor) -> Tensor:
    """Steps (K, P) in place of the gradients: momentum times a scale that each tensor got from its first gradient, norm
    over standard deviation (2412.11768), about the root of its size.

    The second moment holds the scales. A tensor whose first gradient is zero, as behind a readout that starts at zero,
    gets it from the first that is not; one number alone has no deviation, and the scale 1.
    """
    if not state.scaled:
        state.scaled = _scale(grad, state.second, optimizer, weights)
    new = torch.where(state.updates == 1, 1.0, 1 - optimizer.momentum).float()  # the momentum starts at the gradient
    state.first.lerp_(grad, new)
    return torch.mul(state.first, state.second, out=grad).mul_(lr.float())


def _scale(grad: Tensor, scales: Tensor, optimizer: SGDSaI, weights: tuple[Weight, ...]) -> bool:
    """Give a scale to the tensors that have none yet; true where all had theirs.

    Whether one has none must be asked of the device, which then cannot run ahead; a compiled program does not ask.
    """
    known = not torch.compiler.is_compiling()
    for g, scale in zip(tensors(grad, weights), tensors(scales, weights)):
        unknown = scale[:, :, :1] == 0
        if not torch.compiler.is_compiling() and not unknown.any():
            continue
        known = False
        if g.shape[2] > 1:
            spread = g.std(2, keepdim=True) + optimizer.eps
            found = torch.linalg.vector_norm(g, dim=2, keepdim=True) / spread
        else:
            found = torch.ones_like(g)
        scale.copy_(torch.where(unknown, found, scale))
    return known
