"""The update of a pack as compiled programs of fixed shapes: gradients of all members, the optimizer over flat buffers.

On CUDA an update is then captured as one graph and replayed. Nothing falls back in silence: a graph must be whole, and
once a program has run it may not be compiled again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor

from proxytrain.config.recipe import Recipe
from proxytrain.config.schema import AdamW, Model, SGDSaI
from proxytrain.model.gpt import objective, rope_table, rotated, views
from proxytrain.model.layout import layout
from proxytrain.model.parametrization import Scales, scales
from proxytrain.optim.state import Multipliers, State
from proxytrain.optim.update import corrections, move
from proxytrain.plan.pack import MOST_SEQUENCES
from proxytrain.train.compiled import Function, compiled

SHRUNK_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # of a pack that has shrunk: each is compiled anew
CAPTURE_AFTER = 3  # updates of a program before it is captured


def rows(members: int, largest: int, sequences: int) -> int:
    """Rows of the program for so many members left of a pack that had `largest`: theirs, or one of few sizes, filled up
    with rows that have none.
    """
    if members == largest:
        return members
    size = next((s for s in SHRUNK_SIZES if s >= members), largest)
    return min(size, largest) if size * sequences <= MOST_SEQUENCES else members


def autocast(precision: str, device: str) -> AbstractContextManager[Any]:
    """Where products run in bfloat16, if they do; weights, moments and sums stay float32."""
    return torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else nullcontext()


class Program:
    """The update of the rows of a state, as one program.

    Parameters
    ----------
    state : what it changes, in place
    multipliers : of rates, decays and eps
    clip : (K, 1)
    """

    def __init__(self, state: State, recipe: Recipe, micro_batches: int, multipliers: Multipliers, clip: Tensor):
        grad = torch.empty_like(state.weights)
        device, K, T = grad.device, len(grad), recipe.model.context
        shape = (K, recipe.batch_tokens // T, T)
        self.state, self.grad = state, grad
        self.rule = replace(recipe.optimizer, weight_decay=0.0, clip=None)
        self.multipliers = multipliers._replace(each=None)  # not read here
        self.ids, self.targets = (torch.zeros(shape, dtype=torch.long, device=device) for _ in range(2))
        self.lr, self.decay = (torch.zeros((K, 1), dtype=torch.float64, device=device) for _ in range(2))
        self.clip = torch.full((K, 1), float("inf"), device=device)
        self.clip[: len(clip)] = clip
        rope = rope_table(T, rotated(recipe.model), recipe.model.rope_base, device)
        factors = scales(recipe.model, recipe.parametrization)
        about = recipe.model, recipe.vocab, factors, recipe.precision, recipe.optimizer.z_loss, device.type
        gradients = compiled(_gradients(*about))
        self.steps: list[tuple[Function, tuple[Any, ...]]] = []  # a program a micro-batch, with its arguments
        for ids, targets in zip(*(x.tensor_split(micro_batches, 1) for x in (self.ids, self.targets))):
            first = not self.steps
            args = (state.weights, grad, ids, targets), (rope, ids.shape[1] / shape[1], first)
            self.steps.append((gradients, args))
        self.move = compiled(_move(recipe.model, recipe.vocab, self.rule))
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
        elif self.grad.device.type == "cuda" and self.calls > CAPTURE_AFTER:
            self.graph = torch.cuda.CUDAGraph()
            with torch.compiler.set_stance("fail_on_recompile"), torch.cuda.graph(self.graph):
                self.out = self._update()
            self.graph.replay()  # the capture only recorded
        else:
            with torch.compiler.set_stance("fail_on_recompile" if self.calls > 1 else "default"):
                self.out = self._update()
        return self.out

    def _update(self, see: Callable[[Tensor], None] | None = None) -> tuple[Tensor, Tensor]:
        losses = [gradients(*args) for gradients, args in self.steps]
        if see:
            see(self.grad)
        self.state.updates += 1
        return functools.reduce(torch.add, losses), self.move(self._moved(), self.multipliers)

    def _moved(self) -> tuple[Tensor, ...]:
        """What the optimizer takes for each member."""
        s = self.state
        rows = (s.weights, s.first, s.second, s.updates, self.grad, self.lr, self.decay, self.clip)
        return *rows, *corrections(s.updates, self.rule, self.lr)


@functools.cache
def _gradients(model: Model, vocab: int, factors: Scales, precision: str, z_loss: float, device: str) -> Function:
    """Makes gradients (K, P) of weights (K, P), and returns losses (K,), at ids and targets (K, B, T)."""
    weights = layout(model, vocab)

    def gradients(rows: tuple[Tensor, ...], fixed: tuple[tuple[Tensor, Tensor], float, bool]) -> Tensor:
        (flat, grad, ids, targets), (rope, share, first) = rows, fixed

        def shared(flat: Tensor) -> tuple[Tensor, Tensor]:
            with autocast(precision, device):
                minimised, loss = objective(views(flat, weights), ids, targets, model, factors, z_loss, rope)
            return (minimised * share).sum(), loss * share

        found, loss = torch.func.grad(shared, has_aux=True)(flat)
        if first:
            grad.copy_(found)
        else:
            grad.add_(found)
        return loss

    return gradients


@functools.cache
def _move(model: Model, vocab: int, optimizer: AdamW | SGDSaI) -> Function:
    """The optimizer over flat buffers, gradient norms (K, 1) returned; see `Program._moved`."""
    weights = layout(model, vocab)

    def moved(rows: tuple[Tensor, ...], by: Multipliers) -> Tensor:
        flat, first, second, updates, grad, lr, decay, clip, *scales = rows
        state = State(flat, first, second, updates)
        return move(state, grad, optimizer, weights, tuple(scales), lr=lr, decay=decay, clip=clip, by=by)

    return moved
