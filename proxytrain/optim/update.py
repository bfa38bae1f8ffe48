"""One update of a pack by any optimizer: a rate, a decay and a clip per member.

Independent weight decay (2309.14322): w <- w - lr_t * u - (lr_t / lr_peak) * decay * w. Coupled, as torch.optim.AdamW
has it: lr_t * decay * w. The optimizers share the two moments of `State`; each says what it keeps there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from proxytrain.config.schema import AdamW, Muon, SGDSaI
from proxytrain.kernels import cpu as native
from proxytrain.model.layout import Weight, flat_size
from proxytrain.optim.adamw import adamw
from proxytrain.optim.muon import muon
from proxytrain.optim.sgd_sai import sgd_sai
from proxytrain.optim.state import Multipliers, State


@torch.no_grad()
def update(
    state: State,
    grads: Sequence[Tensor],
    optimizer: AdamW | SGDSaI,
    weights: tuple[Weight, ...],
    *,
    lr: Tensor,
    decay: Tensor,
    clip: Tensor,
    by: Multipliers,
) -> Tensor:
    """One update of all members, in place; returns the gradient norms (K, 1) before clipping.

    Parameters
    ----------
    grads : (K, *shape) for each weight; serve as scratch
    weights : what lies where in a row
    lr, decay, clip : (K, 1); decay is already times lr / peak, coupled times lr; clip is inf for none
    by : the parametrization's multipliers
    """
    state.updates += 1
    if isinstance(optimizer, AdamW) and not isinstance(optimizer, Muon) and native.there(state.weights):
        assert by.each is not None
        betas = optimizer.beta1, optimizer.beta2, optimizer.eps
        buffers = state.weights, state.first, state.second
        return native.adamw(buffers, grads, [w.offset for w in weights], state.updates, lr, decay, clip, by.each, betas)
    scales = corrections(state.updates, optimizer, lr)
    return move(state, flattened(grads, weights), optimizer, weights, scales, lr=lr, decay=decay, clip=clip, by=by)


def flattened(grads: Sequence[Tensor], weights: tuple[Weight, ...]) -> Tensor:
    """One buffer (K, P) of the gradients (K, *shape) of each weight; the gaps are zero."""
    flat = grads[0].new_zeros((len(grads[0]), flat_size(weights)))
    for w, grad in zip(weights, grads):
        flat[:, w.offset : w.offset + w.size] = grad.flatten(1)
    return flat


def corrections(updates: Tensor, optimizer: AdamW | SGDSaI, lr: Tensor) -> tuple[Tensor, ...]:
    """Adam's corrections (K, 1) of the first moment, times the rate, and of the root of the second."""
    if isinstance(optimizer, SGDSaI):
        return ()
    scale = (lr / (1 - optimizer.beta1**updates)).float()
    return scale, (1 - optimizer.beta2**updates).rsqrt().float()


@torch.no_grad()
def move(
    state: State,
    grad: Tensor,
    optimizer: AdamW | SGDSaI,
    weights: tuple[Weight, ...],
    scales: tuple[Tensor, ...],
    *,
    lr: Tensor,
    decay: Tensor,
    clip: Tensor,
    by: Multipliers,
) -> Tensor:
    """`update` by flat gradients (K, P) of members whose update is counted, with its `corrections`: a compiler would
    work them out a weight.
    """
    norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
    shrink, decay = torch.clamp(clip / norm, max=1.0), decay.float()
    if isinstance(optimizer, SGDSaI):
        _take(state, sgd_sai(state, grad.mul_(shrink), optimizer, weights, lr), decay, by)
    elif isinstance(optimizer, Muon):
        _take(state, muon(state, grad.mul_(shrink), optimizer, weights, scales, lr, by), decay, by)
    else:
        _take(state, adamw(state, grad.mul_(shrink), optimizer, scales, by), decay, by)
    return norm


def _take(state: State, step: Tensor, decay: Tensor, by: Multipliers) -> None:
    state.weights.mul_(1 - decay * by.decay).sub_(step.mul_(by.lr))
