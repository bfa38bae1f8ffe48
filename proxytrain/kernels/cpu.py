"""The passes over activations on a CPU as kernels in C++ (`cpu.cpp`), compiled once per machine, in seconds.

They serve float32 tensors on one thread (AdamW on any). Where there is no compiler, torch's operations do the same more
slowly (`ops`), and sums have another order: bits differ.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from proxytrain.kernels import cache
from proxytrain.process import say

SOURCE = Path(__file__).with_suffix(".cpp").read_bytes()  # now: files may be replaced under a process
FLAGS = ["-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"]


def serves(x: Tensor) -> bool:
    """Whether the functions are for tensors like `x` in this process, and this machine has them."""
    return there(x) and torch.get_num_threads() == 1  # which a compiler must not see


def there(x: Tensor) -> bool:
    """As `serves`, however many threads torch has: for what one thread can do as fast as memory allows."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    return library() is not None


@functools.cache
def library() -> ctypes.CDLL | None:
    """The functions; None where there is no compiler, or, which is said, they cannot be compiled or loaded."""
    compiler = shutil.which(cache.compiler())
    if compiler is None:
        return None
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
        key = hashlib.blake2b(b"\n".join([version, *map(str.encode, FLAGS), SOURCE]), digest_size=16)
        return _loaded(cache.folder() / f"native-{key.hexdigest()}.so", compiler)
    except (OSError, RuntimeError) as error:
        say(f"training goes on more slowly, since {compiler} cannot be made use of: {error}")
        return None


def _loaded(path: Path, compiler: str) -> ctypes.CDLL:
    """The library of a file, which is made where it is missing or damaged.

    Raises
    ------
    OSError, RuntimeError
        If it cannot be loaded, or not compiled.
    """
    if path.exists():
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            path.unlink(missing_ok=True)
    with cache.alone(path):
        if not path.exists():
            _compile(compiler, path)
    return ctypes.CDLL(str(path))


def _compile(compiler: str, path: Path) -> None:
    """A Ctrl-C, which is for the trainer, does not reach the compiler."""
    for left in path.parent.glob(f"{path.stem}.part-*"):  # by one that was killed
        left.unlink(missing_ok=True)
    part = path.with_suffix(f".part-{os.getpid()}")
    command = [compiler, *FLAGS, "-fPIC", "-shared", "-x", "c++", "-o", str(part), "-"]
    with contextlib.suppress(OSError):  # a full disk
        print("compiling the CPU kernels, once per machine", file=sys.stderr, flush=True)
    done = subprocess.run(command, input=SOURCE, capture_output=True, start_new_session=True, check=False)
    if done.returncode:
        part.unlink(missing_ok=True)
        raise RuntimeError(done.stderr.decode(errors="replace") or f"exit code {done.returncode}")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def _call(name: str, *args: Tensor | int | None) -> None:
    """A function of the library. All its numbers are int64; of a tensor it gets where it begins, of None 0.

    Raises
    ------
    MemoryError
        If there is too little for what it needs on its way.
    """
    found = library()
    assert found is not None
    numbers = (a if isinstance(a, int) else a.data_ptr() if a is not None else 0 for a in args)
    if getattr(found, name)(*map(ctypes.c_int64, numbers)):
        raise MemoryError(name)


def normed(x: Tensor, gain: Tensor, taps: Tensor | None, T: int) -> tuple[Tensor, Tensor]:
    """x (K, B*T, d) as it is, and x / rms(x) * gain, convolved over T positions: see `ops.normed`."""
    return Normed.apply(x.contiguous(), gain, taps, T)


def attention(
    x: Tensor, gate: Tensor | None, gain: Tensor | None, rope: tuple[Tensor, Tensor], parts: int, T: int, h: int
) -> Tensor:
    """What heads of size h read (K, B*T, d), causally within each T positions.

    Parameters
    ----------
    x : (K, B*T, 3d), queries, keys and values: three `parts`; or two, where the queries are the keys
    gate : (K, d), how much of each key is the one of the position before; None for none
    gain : (K, H) of the normalised queries; None where neither they nor keys are normalised
    rope : cos and sin (T, 1, n), of which the first 2n floats of a head are turned
    """
    return Attention.apply(x.contiguous(), gate, gain, *rope, parts, T, h)


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2."""
    return NativeSquaredReLU.apply(x.contiguous())


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss in nats of every position (K, N), from logits (K, N, V) and targets (K, N)."""
    return CrossEntropy.apply(logits.contiguous(), targets.long().contiguous())[0]


def adamw(
    buffers: tuple[Tensor, Tensor, Tensor],
    grads: Sequence[Tensor],
    offsets: Sequence[int],
    updates: Tensor,
    lr: Tensor,
    decay: Tensor,
    clip: Tensor,
    by: Tensor,
    betas: tuple[float, float, float],
) -> Tensor:
    """One update in place (see `optimizer.update`); gradient norms (K, 1) before clipping.

    Parameters
    ----------
    buffers : weights and moments (K, P)
    grads, offsets : of each of n weights the gradient (K, *shape), and where the weight begins in a row
    updates, lr, decay, clip : (K, 1); how many updates, with this one
    by : (n, 3), multipliers of each weight's rate, decay and eps
    betas : beta1, beta2, eps
    """
    K, P = buffers[0].shape
    grads = [g.contiguous() for g in grads]
    where = torch.tensor([[g.data_ptr(), at, g[0].numel()] for g, at in zip(grads, offsets)])
    numbers = torch.cat((lr.double(), decay.double(), clip.double(), updates.double()), 1)
    norm = buffers[0].new_empty(K, 1)
    _call("adamw", *buffers, where, by, numbers, torch.tensor(betas, dtype=torch.float64), norm, K, P, len(grads))
    return norm


def _stride(x: Tensor | None) -> int:
    """Floats from one member to the next."""
    return x.stride(0) if x is not None else 0


class Normed(Function):
    """x passes through, so that backward adds what comes to it by other ways in the same pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, taps: Tensor | None, T: int) -> tuple[Tensor, Tensor]:
        K, N, d = x.shape
        out, scale = torch.empty_like(x), x.new_empty(K, N)
        ctx.numbers = (taps.shape[1] if taps is not None else 1, _stride(gain), _stride(taps)), (K, N, T, d)
        _call("norm_forward", x, gain, taps, *ctx.numbers[0], out, scale, *ctx.numbers[1])
        ctx.save_for_backward(x, gain, taps, scale)
        ctx.set_materialize_grads(False)
        return x.view_as(x), out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, past: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return past, None, None, None
        x, gain, taps, scale = ctx.saved_tensors
        dx, dgain = torch.empty_like(x), x.new_zeros(gain.shape)
        dtaps = x.new_zeros(taps.shape) if taps is not None else None
        past = past.contiguous() if past is not None else None
        ways, shape = ctx.numbers
        _call("norm_backward", x, gain, taps, *ways, scale, grad.contiguous(), past, dx, dgain, dtaps, *shape)
        return dx, dgain, dtaps, None


class Attention(Function):
    """See `attention`. Backward makes the probabilities again, from each query's largest logit and sum."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gate: Tensor | None,
        gain: Tensor | None,
        cos: Tensor,
        sin: Tensor,
        parts: int,
        T: int,
        h: int,
    ) -> Tensor:
        K, N, d = *x.shape[:2], x.shape[2] // parts
        out, top, over = x.new_empty(K, N, d), x.new_empty(K, d // h, N), x.new_empty(K, d // h, N)
        ctx.ways = parts, _stride(gate), _stride(gain), cos.shape[-1]
        ctx.shape = K, N, T, d // h, h
        _call("attention_forward", x, gate, gain, cos, sin, *ctx.ways, out, top, over, *ctx.shape)
        ctx.save_for_backward(x, gate, gain, cos, sin, top, over)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, gain, cos, sin, top, over = ctx.saved_tensors
        dx = torch.empty_like(x)
        dgate, dgain = (x.new_zeros(w.shape) if w is not None else None for w in (gate, gain))
        of = x, gate, gain, cos, sin, *ctx.ways
        _call("attention_backward", *of, grad.contiguous(), top, over, dx, dgate, dgain, *ctx.shape)
        return dx, dgate, dgain, *[None] * 5


class NativeSquaredReLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        out = torch.empty_like(x)
        _call("squared_relu_forward", x, out, x.numel())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        _call("squared_relu_backward", x, grad.contiguous(), dx, x.numel())
        return dx


class CrossEntropy(Function):
    """See `cross_entropy`; beside the loss each position's largest logit and one over its sum, for backward."""

    @staticmethod
    def forward(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ops.proxytrain.cross_entropy(logits, targets)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        return torch.ops.proxytrain.cross_entropy_backward(*ctx.saved_tensors, grad), None


# Operations of torch's, which its function transforms look through (see `model.objective`)
torch.library.define("proxytrain::cross_entropy", "(Tensor logits, Tensor targets) -> (Tensor, Tensor, Tensor)")
torch.library.define(
    "proxytrain::cross_entropy_backward", "(Tensor x, Tensor t, Tensor m, Tensor o, Tensor g) -> Tensor"
)


@torch.library.impl("proxytrain::cross_entropy", "cpu")
def _cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    K, N, V = logits.shape
    loss, most, over = (logits.new_empty(K, N) for _ in range(3))
    _call("cross_entropy_forward", logits, targets, loss, most, over, K * N, V)
    return loss, most, over


@torch.library.impl("proxytrain::cross_entropy_backward", "cpu")
def _cross_entropy_backward(logits: Tensor, targets: Tensor, most: Tensor, over: Tensor, grad: Tensor) -> Tensor:
    dx = torch.empty_like(logits)
    _call("cross_entropy_backward", logits, targets, most, over, grad.contiguous(), dx, grad.numel(), logits.shape[2])
    return dx
