"""The optimizers over a pack: passes over the flat buffers (K, P), with a rate, a decay and a clip a member.

Independent weight decay (2309.14322): w <- w - lr_t * u - (lr_t / lr_peak) * decay * w. Coupled, as torch.optim.AdamW
has it: lr_t * decay * w. AdamW, Muon and SGD-SaI share the two moments of `State`; what each keeps there is told where
it is. Whatever is done a tensor is done for all members, and for all blocks, at once. AdamW on a CPU is one pass over
memory (`native`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from proxytrain import native
from proxytrain.config import Model, Muon, Optimizer, Parametrization, SGDSaI
from proxytrain.layout import Weight, aligned, flat_size
from proxytrain.parametrization import rule

QUINTIC = (3.4445, -4.7750, 2.0315)  # of Newton-Schulz: singular values end between .7 and 1.2 (Jordan 2024, "Muon")
ADAM_RMS = 0.2  # of AdamW's steps, which Muon's are scaled to (2502.16982)
LEAST_NORM = 1e-7  # of a matrix that is orthogonalised


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


def multipliers(
    weights: tuple[Weight, ...],
    model: Model,
    parametrization: Parametrization,
    optimizer: Optimizer | SGDSaI,
    device: torch.device | str = "cpu",
) -> Multipliers:
    """What the parametrization's table says of every weight, and Muon's scale of a matrix: .2 sqrt(max(rows, columns)),
    so that its steps are as large as AdamW's and one learning rate serves both (2502.16982). Coupled decay goes with
    the table's rate.
    """
    lr, decay, eps = torch.zeros(3, flat_size(weights)).unbind()
    eps.fill_(1.0)  # of the gaps too, whose step is 0 / eps
    for w in weights:
        size = {"width": model.width, "fan_in": w.shape[0], "depth": model.depth}
        row = rule(w.kind, parametrization, optimizer.name, **size, block="." in w.name)
        at = slice(w.offset, w.offset + w.size)
        lr[at], decay[at], eps[at] = row.lr, row.decay, row.eps
        if optimizer.decay == "coupled":
            decay[at] *= row.lr
        if isinstance(optimizer, Muon):
            lr[at] *= ADAM_RMS * max(w.shape[0], w.shape[1] // w.parts) ** 0.5 if w.matrix else optimizer.adamw_lr
    starts = torch.tensor([w.offset for w in weights])
    each = torch.stack((lr[starts], decay[starts], eps[starts]), 1).double()
    eps = eps[:1] if bool((eps == eps[0]).all()) else eps
    return Multipliers(lr.to(device), decay.to(device), eps.to(device), each)


@torch.no_grad()
def update(
    state: State,
    grads: Sequence[Tensor],
    optimizer: Optimizer | SGDSaI,
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
    if isinstance(optimizer, Optimizer) and not isinstance(optimizer, Muon) and native.there(state.weights):
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


def corrections(updates: Tensor, optimizer: Optimizer | SGDSaI, lr: Tensor) -> tuple[Tensor, ...]:
    """Adam's corrections (K, 1) of the first moment, times the rate, and of the root of the second."""
    if isinstance(optimizer, SGDSaI):
        return ()
    scale = (lr / (1 - optimizer.beta1**updates)).float()
    return scale, (1 - optimizer.beta2**updates).rsqrt().float()


@torch.no_grad()
def move(
    state: State,
    grad: Tensor,
    optimizer: Optimizer | SGDSaI,
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
        _take(state, _sgd_sai(state, grad.mul_(shrink), optimizer, weights, lr), decay, by)
    elif isinstance(optimizer, Muon):
        _take(state, _muon(state, grad.mul_(shrink), optimizer, weights, scales, lr, by), decay, by)
    else:
        _take(state, _adamw(state, grad.mul_(shrink), optimizer, scales, by), decay, by)
    return norm


def _take(state: State, step: Tensor, decay: Tensor, by: Multipliers) -> None:
    state.weights.mul_(1 - decay * by.decay).sub_(step.mul_(by.lr))


def _adamw(state: State, grad: Tensor, optimizer: Optimizer, scales: tuple[Tensor, ...], by: Multipliers) -> Tensor:
    """Steps (K, P) in place of the gradients (1711.05101)."""
    state.first.lerp_(grad, 1 - optimizer.beta1)
    state.second.mul_(optimizer.beta2).addcmul_(grad, grad, value=1 - optimizer.beta2)
    step = torch.sqrt(state.second, out=grad).mul_(scales[1]).add_(optimizer.eps * by.eps)
    return torch.div(state.first, step, out=grad).mul_(scales[0])


def _muon(
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
    moments, grads = (list(_matrices(x, weights)) for x in (state.first, grad))
    found = []
    for shape in dict.fromkeys(g.shape[3:] for g in grads):
        alike = [i for i, g in enumerate(grads) if g.shape[3:] == shape]
        g, before = (torch.cat([x[i].flatten(1, 2) for i in alike], 1) for x in (grads, moments))
        moment = before.lerp_(g, 1 - optimizer.momentum)
        found.append((alike, moment, orthogonal(g.lerp_(moment, optimizer.momentum), optimizer.iterations)))
    step = _adamw(state, grad, optimizer, scales, by)
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


def _sgd_sai(state: State, grad: Tensor, optimizer: SGDSaI, weights: tuple[Weight, ...], lr: Tensor) -> Tensor:
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
    for g, scale in zip(_tensors(grad, weights), _tensors(scales, weights)):
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


def _tensors(flat: Tensor, weights: tuple[Weight, ...]) -> Iterator[Tensor]:
    """The weights as views (K, n, size) of a flat buffer (K, P): those of all n blocks together, the others alone."""
    for view, _ in _stacked(flat, weights):
        yield view


def _matrices(flat: Tensor, weights: tuple[Weight, ...]) -> Iterator[Tensor]:
    """The matrices inside blocks as views (K, blocks, parts, rows, columns), rows <= columns."""
    for view, w in _stacked(flat, weights):
        if w.matrix:
            each = view.unflatten(2, (w.shape[0], w.parts, -1)).transpose(2, 3)
            yield each if each.shape[3] <= each.shape[4] else each.mT


def _stacked(flat: Tensor, weights: tuple[Weight, ...]) -> Iterator[tuple[Tensor, Weight]]:
    """Views (K, n, size) of the weights that all n blocks have, and of each that lies outside; with one of them."""
    inside = [w for w in weights if "." in w.name]
    first = [w for w in inside if w.name.startswith("0.")]
    start, stop = first[0].offset, inside[-1].offset + aligned(inside[-1].size)
    blocks = flat[:, start:stop].unflatten(1, (len(inside) // len(first), -1))
    for w in first:
        yield blocks[:, :, w.offset - start : w.offset - start + w.size], w
    for w in weights:
        if "." not in w.name:
            yield flat[:, None, w.offset : w.offset + w.size], w
