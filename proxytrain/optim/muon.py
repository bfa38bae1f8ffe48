"""Muon for the matrices inside blocks, AdamW for all else (Jordan 2024; 2502.16982)."""

from __future__ import annotations

import torch
from torch import Tensor

from proxytrain.config.schema import Muon
from proxytrain.model.layout import Weight
from proxytrain.optim.adamw import adamw
from proxytrain.optim.state import Multipliers, State
from proxytrain.optim.views import matrices

QUINTIC = (3.4445, -4.7750, 2.0315)  # of Newton-Schulz: singular values end between .7 and 1.2 (Jordan 2024, "Muon")
ADAM_RMS = 0.2  # of AdamW's steps, which Muon's are scaled to (2502.16982)
LEAST_NORM = 1e-7  # of a matrix that is orthogonalised


def muon(
    state: State,
    grad: Tensor,
    optimizer: Muon,
    weights: tuple[Weight, ...],
    scales: tuple[Tensor, ...],
    lr: Tensor,
    by: Multipliers,
) -> Tensor:
    """AdamW's steps, and over them Muon's for the matrices inside blocks: Nesterov momentum, orthogonalised (Jordan
    2024, "Muon: an optimizer for hidden layers"; 2502.16982). Q, K and V, and a gate and its value, are matrices each.

    The first moment of those is their momentum; their second moment is AdamW's, and not read.
    """
    moments, grads = (list(matrices(x, weights)) for x in (state.first, grad))
    found = []
    for shape in dict.fromkeys(g.shape[3:] for g in grads):
        alike = [i for i, g in enumerate(grads) if g.shape[3:] == shape]
        g, before = (torch.cat([x[i].flatten(1, 2) for i in alike], 1) for x in (grads, moments))
        moment = before.lerp_(g, 1 - optimizer.momentum)
        found.append((alike, moment, orthogonal(g.lerp_(moment, optimizer.momentum), optimizer.iterations)))
    step = adamw(state, grad, optimizer, scales, by)
    for alike, moment, direction in found:
        direction *= lr.float()[:, :, None, None]
        start = 0
        for i in alike:
            stop = start + grads[i].shape[1] * grads[i].shape[2]
            moments[i].copy_(moment[:, start:stop].view(moments[i].shape))
            grads[i].copy_(direction[:, start:stop].view(grads[i].shape))
            start = stop
    return step


def orthogonal(x: Tensor, iterations: int) -> Tensor:
    """Nearly the orthogonal factor of matrices (K, n, rows, columns), rows <= columns: singular values near 1."""
    a, b, c = QUINTIC
    shape = x.shape
    x = x / torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True).clamp(min=LEAST_NORM)
    x = x.flatten(0, 1)
    for _ in range(iterations):
        square = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.view(shape)
