"""Operations with a backward of their own, where autograd's would pass over memory more often than needed.

At these widths time goes into passes over activations, not into products. Each is tested against autograd. A compiler
fuses the plain formulas by itself, and better: under one they are what runs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

EPS = 1e-6


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
    return SquaredReLU.apply(x)


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
