"""Operations with a backward of their own, where autograd's would pass over memory more often than needed.

At these widths time goes into passes over activations, not into products. Each is tested against autograd. On a CPU
they are those of `cpu`, where it can be compiled. torch's compiler fuses the plain formulas by itself: under it they
are what runs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from proxytrain.kernels import cpu as native

EPS = 1e-6
SHORT = {2: 128, 4: 64}  # by bytes of a float, tokens that fit into one tile of our own attention on a GPU, and
NARROW = 64  # floats of a head; larger tiles do not fit into the registers, and take minutes to compile


def normed(x: Tensor, gain: Tensor, taps: Tensor | None, T: int) -> tuple[Tensor, Tensor]:
    """x (K, B*T, d), and what a block reads of it: normalised, and where there are taps, convolved."""
    if native.serves(x):
        return native.normed(x, gain, taps, T)
    h = rms_norm(x, gain)
    return x, h if taps is None else causal_conv(h, taps, T)


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """x / rms(x) * gain (1910.07467): x (K, N, d), gain (K, d)."""
    if torch.compiler.is_compiling():
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * gain[:, None]
    return RMSNorm.apply(x, gain)


def causal_conv(x: Tensor, taps: Tensor, T: int) -> Tensor:
    """Depthwise convolution over T positions: x (K, B*T, d), taps (K, n, d); tap j weighs the position j before."""
    if torch.compiler.is_compiling():
        rows = x.unflatten(1, (-1, T))
        out = rows * taps[:, None, None, 0]
        for j in range(1, taps.shape[1]):
            out = out + F.pad(rows, (0, 0, j, -j)) * taps[:, None, None, j]
        return out.flatten(1, 2)
    return CausalConv.apply(x, taps, T)


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2 (2109.08668)."""
    if torch.compiler.is_compiling():
        y = F.relu(x)
        return y * y
    return native.squared_relu(x) if native.serves(x) else SquaredReLU.apply(x)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss in nats of every position (K, N), from logits (K, N, V) and targets (K, N)."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if native.serves(logits):
        return native.cross_entropy(logits, targets)
    K, N, V = logits.shape
    return F.cross_entropy(logits.reshape(K * N, V), targets.reshape(K * N), reduction="none").view(K, N)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention (n, T, H, h) of n sequences of T positions, in the precision of `v`.

    torch's kernels are made for long sequences; for short ones a GPU has one of our own, three times as fast. It needs
    what compiled programs need, and is part of them only.
    """
    T, h = q.shape[1], q.shape[3]
    if torch.compiler.is_compiling() and v.is_cuda and h <= NARROW and SHORT.get(v.itemsize, 0) >= T:
        return ShortAttention.apply(q.to(v.dtype), k.to(v.dtype), v)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if not v.is_cuda and v.dtype == torch.bfloat16:  # torch's backward for it on a CPU takes seven times as long
        with torch.autocast("cpu", enabled=False):
            y = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
        return y.to(v.dtype).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


@torch.library.custom_op("proxytrain::short_attention", mutates_args=(), device_types="cuda")
def short_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See `kernels`; where a token's heads do not lie side by side, they are copied."""
    from proxytrain.kernels import gpu as kernels

    out = torch.empty(q.shape, dtype=v.dtype, device=v.device)
    kernels.forward(_side_by_side(q), _side_by_side(k), _side_by_side(v), out)
    return out


@torch.library.custom_op("proxytrain::short_attention_backward", mutates_args=(), device_types="cuda")
def short_attention_backward(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    from proxytrain.kernels import gpu as kernels

    dq, dk, dv = (torch.empty(q.shape, dtype=v.dtype, device=v.device) for _ in range(3))
    q, k, v, grad = (_side_by_side(x) for x in (q, k, v, grad))
    kernels.backward(q, k, v, grad, dq, dk, dv)
    return dq, dk, dv


@short_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return v.new_empty(v.shape)


@short_attention_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return v.new_empty(v.shape), v.new_empty(v.shape), v.new_empty(v.shape)


class ShortAttention(Function):
    """See `causal_attention`."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return short_attention(q, k, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return short_attention_backward(*ctx.saved_tensors, grad)


def _side_by_side(x: Tensor) -> Tensor:
    """x (n, T, H, h) as the kernels read it."""
    _, T, _, h = x.shape
    n, t, *inner = x.stride()
    return x if inner == [h, 1] and n == T * t else x.contiguous()


class RMSNorm(Function):
    """See `rms_norm`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(EPS).rsqrt_()
        unit = x * scale
        ctx.save_for_backward(unit, scale, gain)
        return unit * gain[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        unit, scale, gain = ctx.saved_tensors
        product = grad * unit
        along = (product * gain[:, None]).sum(-1, keepdim=True).div_(-grad.shape[-1])  # not a bmm: its bits depend on K
        return torch.addcmul(grad * gain[:, None], unit, along).mul_(scale), product.sum(1)


class CausalConv(Function):
    """See `causal_conv`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, T: int) -> Tensor:
        ctx.save_for_backward(x, taps)
        ctx.T = T
        out = x * taps[:, None, 0]
        rows, source = out.unflatten(1, (-1, T)), x.unflatten(1, (-1, T))
        for j in range(1, taps.shape[1]):
            rows[:, :, j:].addcmul_(source[:, :, :-j], taps[:, None, None, j])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, taps = ctx.saved_tensors
        dx = grad * taps[:, None, 0]
        rows, source, g = (y.unflatten(1, (-1, ctx.T)) for y in (dx, x, grad))
        dtaps = [(grad * x).sum(1)]
        for j in range(1, taps.shape[1]):
            rows[:, :, :-j].addcmul_(g[:, :, j:], taps[:, None, None, j])
            dtaps.append((g[:, :, j:] * source[:, :, :-j]).sum((1, 2)))
        return dx, torch.stack(dtaps, 1), None


class SquaredReLU(Function):
    """See `squared_relu`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = F.relu(x)
        ctx.save_for_backward(y)
        return y * y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return (grad * y).mul_(2)
