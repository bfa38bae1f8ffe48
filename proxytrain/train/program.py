"""The update of a pack as compiled programs of fixed shapes: gradients of all members, the optimizer over flat buffers.

What is compiled serves the whole life of a worker, and lies on disk in this user's cache (TORCHINDUCTOR_CACHE_DIR), so
that a shape compiles once on a machine. On CUDA an update is then captured as one graph and replayed. Nothing falls
back in silence: a graph must be whole, and once a program has run it may not be compiled again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from proxytrain.config import Model, Optimizer, SGDSaI
from proxytrain.layout import layout
from proxytrain.model import objective, rope_table, rotated, views
from proxytrain.optimizer import Multipliers, State, corrections, move
from proxytrain.parametrization import Scales
from proxytrain.plan.pack import MOST_SEQUENCES
from proxytrain.runs import Recipe

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # of a pack that has shrunk; rows without a member fill it up
WARM = 3  # updates of a program before it is captured
VERSIONS = 512  # of one function that may be compiled: shapes times sizes


def rows(members: int, largest: int, sequences: int) -> int:
    """Rows of the program for so many members left of a pack that had `largest`: one of few sizes."""
    if members == largest:
        return members
    size = next((s for s in SIZES if s >= members), largest)
    return min(size, largest) if size * sequences <= MOST_SEQUENCES else members


def autocast(precision: str, device: str) -> AbstractContextManager:
    """Where products run in bfloat16, if they do; weights, moments and sums stay float32."""
    return torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else nullcontext()


class Program:
    """The update of the rows of a state, as one program.

    Parameters
    ----------
    state : what it changes, in place
    scales : multipliers of the forward pass
    multipliers : of rates, decays and eps
    clip : (K, 1)
    """

    def __init__(
        self,
        state: State,
        recipe: Recipe,
        micro_batches: int,
        scales: Scales,
        multipliers: Multipliers,
        clip: Tensor,
    ):
        grad = torch.empty_like(state.weights)
        device, K, T = grad.device, len(grad), recipe.model.context
        shape = (K, recipe.batch_tokens // T, T)
        self.state, self.grad = state, grad
        self.multipliers = multipliers._replace(each=())  # not read here, and each would be a condition
        self.rule = dataclasses.replace(recipe.optimizer, weight_decay=0.0, clip=None)
        self.ids, self.targets = (torch.zeros(shape, dtype=torch.long, device=device) for _ in range(2))
        self.parts = list(zip(*(x.tensor_split(micro_batches, 1) for x in (self.ids, self.targets))))
        self.lr, self.decay = (torch.zeros((K, 1), dtype=torch.float64, device=device) for _ in range(2))
        self.clip = torch.full((K, 1), float("inf"), device=device)
        self.clip[: len(clip)] = clip
        self.rope = rope_table(T, rotated(recipe.model), recipe.model.rope_base, device)
        self.gradients, self.move = _compiled(
            recipe.model, recipe.vocab, scales, self.rule, recipe.precision, device.type
        )
        _of_any_size(state.weights, state.first, state.second, state.updates, grad, self.lr, self.decay, self.clip)
        _of_any_size(*(x for part in self.parts for x in part))
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.out: tuple[Tensor, Tensor]

    def __call__(
        self,
        ids: Tensor,
        targets: Tensor,
        lr: Tensor,
        decay: Tensor,
        see: Callable[[Tensor], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One update: losses (K,) and gradient norms (K, 1), overwritten by the next.

        Parameters
        ----------
        ids, targets : (k or 1, B, T) of the k members; rows without a member are left at rate 0
        lr, decay : (k, 1)
        see : is shown the gradients (K, P) before they are clipped; such an update is not replayed
        """
        for buffer, value in ((self.ids, ids), (self.targets, targets), (self.lr, lr), (self.decay, decay)):
            buffer[: len(lr)].copy_(value)
        self.calls += 1
        if see is not None:
            with torch.compiler.set_stance("fail_on_recompile" if self.calls > 1 else "default"):
                return self._update(see)
        if self.graph is not None:
            self.graph.replay()
        elif self.grad.device.type == "cuda" and self.calls > WARM:
            self.graph = torch.cuda.CUDAGraph()
            with torch.compiler.set_stance("fail_on_recompile"), torch.cuda.graph(self.graph):
                self.out = self._update()
            self.graph.replay()  # the capture only recorded
        else:
            with torch.compiler.set_stance("fail_on_recompile" if self.calls > 1 else "default"):
                self.out = self._update()
        return self.out

    def _update(self, see: Callable[[Tensor], None] | None = None) -> tuple[Tensor, Tensor]:
        losses = [
            self.gradients(
                self.state.weights, self.grad, ids, targets, self.rope, ids.shape[1] / self.ids.shape[1], i == 0
            )
            for i, (ids, targets) in enumerate(self.parts)
        ]
        if see:
            see(self.grad)
        s = self.state
        s.updates += 1
        scales = corrections(s.updates, self.rule, self.lr)
        _of_any_size(*scales)
        rates = (self.lr, self.decay, self.clip)
        norm = self.move(s.weights, s.first, s.second, s.updates, self.grad, scales, *rates, self.multipliers)
        return functools.reduce(torch.add, losses), norm


def _of_any_size(*rows: Tensor) -> None:
    """On a CPU programs take any number of members, so that a shape compiles once: at the same speed (FINDINGS.md). One
    member has a program of its own, and so has every size on a GPU, where this was not tried.
    """
    for x in rows:
        if x.device.type == "cpu" and len(x) > 1:
            torch._dynamo.mark_dynamic(x, 0)


@functools.cache
def _compiled(
    model: Model, vocab: int, scales: Scales, optimizer: Optimizer | SGDSaI, precision: str, device: str
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Gradients and optimizer of packs of one shape; they compile when they are first met (see `_of_any_size`)."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_cache_dir()))
    import torch._dynamo

    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = VERSIONS
    torch._dynamo.config.automatic_dynamic_shapes = False
    weights = layout(model, vocab)

    def gradients(
        flat: Tensor, grad: Tensor, ids: Tensor, targets: Tensor, rope: tuple[Tensor, Tensor], share: float, first: bool
    ) -> Tensor:
        def shared(flat: Tensor) -> tuple[Tensor, Tensor]:
            with autocast(precision, device):
                minimised, loss = objective(views(flat, weights), ids, targets, model, scales, optimizer.z_loss, rope)
            return (minimised * share).sum(), loss * share

        found, loss = torch.func.grad(shared, has_aux=True)(flat)
        if first:
            grad.copy_(found)
        else:
            grad.add_(found)
        return loss

    def moved(flat, first, second, updates, grad, scales, lr, decay, clip, by):  # type: ignore[no-untyped-def]
        state = State(flat, first, second, updates)
        return move(state, grad, optimizer, weights, scales, lr=lr, decay=decay, clip=clip, by=by)

    return tuple(torch.compile(f, fullgraph=True) for f in (gradients, moved))  # type: ignore[return-value]


def _cache_dir() -> Path:
    """Compiled code is for this kind of processor, and is run: it lies with this user's files, never in a store."""
    text = "\n".join(sorted(set(Path("/proc/cpuinfo").read_text().splitlines())))
    flags = [line for line in text.splitlines() if line.startswith(("flags", "model name", "Features"))]
    kind = hashlib.blake2b("\n".join([platform.machine(), *flags]).encode(), digest_size=6).hexdigest()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "proxytrain" / f"compiled-{kind}"
