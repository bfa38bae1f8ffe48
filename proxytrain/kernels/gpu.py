"""Causal attention of short sequences on a GPU, in Triton: a head of a sequence is one tile, forward and backward.

Softmax needs no pieces then, and backward neither its sums nor the output: it makes the probabilities again. All that
passes through memory are queries, keys, values and gradients. Tensors are (n, T, H, h) in which the heads of a token
lie side by side; their strides are the floats from one token to the next.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

WARPS = 4


def forward(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
    _forward[_grid(q)](q, k, v, out, *(x.stride(1) for x in (q, k, v, out)), *_shape(q), num_warps=WARPS)


def backward(q: Tensor, k: Tensor, v: Tensor, grad: Tensor, dq: Tensor, dk: Tensor, dv: Tensor) -> None:
    strides = [x.stride(1) for x in (q, k, v, grad, dq)]
    _backward[_grid(q)](q, k, v, grad, dq, dk, dv, *strides, *_shape(q), num_warps=WARPS)


def _grid(q: Tensor) -> tuple[int]:
    return (q.shape[0] * q.shape[2],)


def _shape(q: Tensor) -> tuple[float | int | str, ...]:
    """Scale, H, T, h, tile sizes (powers of 2 that products take), and that float32 is not to be rounded to tf32."""
    _, T, H, h = q.shape
    return h**-0.5, H, T, h, max(16, triton.next_power_of_2(T)), max(16, triton.next_power_of_2(h)), "ieee"


@triton.jit
def _at(stride, H, T: tl.constexpr, D: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where the tile of this program lies, (BT, BD), and which of that is there."""
    i = tl.program_id(0).to(tl.int64)
    rows, cols = tl.arange(0, BT)[:, None], tl.arange(0, BD)[None, :]
    return (i // H * T + rows) * stride + i % H * D + cols, (rows < T) & (cols < D)


@triton.jit
def _load(x, stride, H, T: tl.constexpr, D: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr):  # type: ignore[no-untyped-def]
    at, there = _at(stride, H, T, D, BT, BD)
    return tl.load(x + at, mask=there, other=0.0)


@triton.jit
def _probabilities(q, k, scale, T: tl.constexpr, BT: tl.constexpr, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    rows, cols = tl.arange(0, BT)[:, None], tl.arange(0, BT)[None, :]
    logits = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    logits = tl.where((rows >= cols) & (cols < T), logits, float("-inf"))
    p = tl.exp(logits - tl.max(logits, 1)[:, None])
    return p / tl.sum(p, 1)[:, None]


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    q, k, v, out, sq, sk, sv, so, scale, H,
    T: tl.constexpr, D: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    q = _load(q, sq, H, T, D, BT, BD)
    k = _load(k, sk, H, T, D, BT, BD)
    v = _load(v, sv, H, T, D, BT, BD)
    p = _probabilities(q, k, scale, T, BT, PRECISION).to(v.dtype)
    at, there = _at(so, H, T, D, BT, BD)
    tl.store(out + at, tl.dot(p, v, input_precision=PRECISION).to(v.dtype), mask=there)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    q, k, v, grad, dq, dk, dv, sq, sk, sv, sg, so, scale, H,
    T: tl.constexpr, D: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    q = _load(q, sq, H, T, D, BT, BD)
    k = _load(k, sk, H, T, D, BT, BD)
    v = _load(v, sv, H, T, D, BT, BD)
    g = _load(grad, sg, H, T, D, BT, BD)
    p = _probabilities(q, k, scale, T, BT, PRECISION)
    at, there = _at(so, H, T, D, BT, BD)
    tl.store(dv + at, tl.dot(tl.trans(p.to(g.dtype)), g, input_precision=PRECISION).to(v.dtype), mask=there)
    dp = tl.dot(g, tl.trans(v), input_precision=PRECISION)
    ds = (p * (dp - tl.sum(p * dp, 1)[:, None]) * scale).to(q.dtype)
    tl.store(dq + at, tl.dot(ds, k, input_precision=PRECISION).to(q.dtype), mask=there)
    tl.store(dk + at, tl.dot(tl.trans(ds), q, input_precision=PRECISION).to(q.dtype), mask=there)
