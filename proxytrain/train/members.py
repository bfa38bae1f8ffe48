"""The members of a pack under way: one row each in the flat buffers, and where each one is."""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass, field

import numpy as np
import torch

from proxytrain.arrays import Array
from proxytrain.model.gpt import Weights, views
from proxytrain.model.layout import flat_size, layout
from proxytrain.optim.state import State
from proxytrain.plan.pack import Member
from proxytrain.plan.share import Segment
from proxytrain.store.curves import CURVE_ARRAYS
from proxytrain.train.trace import SAMPLED

EXPLODED = 3.0  # a loss of so many times ln V is that of a member that has diverged


@dataclass(eq=False, kw_only=True)
class Active:
    """A member under way: its position, and its curve since the start of the segment that it trains."""

    index: int  # in the pack
    member: Member
    position: int  # tokens
    at: int = 0  # index of the segment that it trains
    seconds: float = 0.0  # since the start of the segment; its share of the pack's time
    curve: dict[str, list[Array]] = field(default_factory=lambda: {n: [] for n in (*CURVE_ARRAYS, *SAMPLED)})
    saved: dict[str, int] = field(default_factory=dict)  # pieces of the curve that checkpoints hold already,
    chunks: list[str] = field(default_factory=list)  # and the files that hold them
    mean: Array | None = None  # (P,) float64, of the weights so far, where they are averaged; never changed in place

    @property
    def goal(self) -> Segment:
        return self.member.segments[self.at]

    def rows(self, after: dict[str, int] | None = None) -> dict[str, Array]:
        """The curve so far (without its first pieces) as arrays: tokens int64, telemetry float32, all else float64."""
        kinds = {"telemetry": np.float32} | dict.fromkeys(("tokens", "eval_tokens", "telemetry_tokens"), np.int64)
        rest = {k: [p for p in v[(after or {}).get(k, 0) :] if len(p)] for k, v in self.curve.items()}
        return {k: np.concatenate(v or [np.empty(0)]).astype(kinds.get(k, np.float64)) for k, v in rest.items()}

    def clear(self) -> None:
        self.seconds = 0.0
        self.saved, self.chunks, self.mean = {}, [], None
        for pieces in self.curve.values():
            pieces.clear()


def apart(values: Array) -> Array:
    """A copy outside the heap. What stays among the activations breaks the heap into pieces that the next ones do not
    fit, and a process grows by megabytes with every few updates.
    """
    room = mmap.mmap(-1, values.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    copy = np.frombuffer(room, values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def sound(loss: Array, grad_norm: Array, vocab: int) -> Array:
    """Of each row of a curve, whether the member has not diverged there."""
    return np.isfinite(loss) & np.isfinite(grad_norm) & (loss < EXPLODED * math.log(vocab))


class Rows:
    """Buffers (K, P) of the active members: weights with their views, and the optimizer's state."""

    def __init__(self, active: list[Active], state: State):
        recipe = active[0].member.recipe
        self.active, self.state = active, state
        self.layout = layout(recipe.model, recipe.vocab)
        self._bind()

    @staticmethod
    def allocate(active: list[Active], device: torch.device) -> Rows:
        """Zeroed rows for these members; the caller fills them."""
        recipe = active[0].member.recipe
        shape = (len(active), flat_size(layout(recipe.model, recipe.vocab)))
        weights, first, second = (torch.zeros(shape, device=device) for _ in range(3))
        updates = torch.zeros((len(active), 1), dtype=torch.float64, device=device)
        return Rows(active, State(weights, first, second, updates))

    def keep(self, stay: list[bool]) -> None:
        """Only these members go on: a row select of every buffer."""
        index = torch.tensor([i for i, s in enumerate(stay) if s], device=self.state.weights.device, dtype=torch.long)
        s = self.state
        self.active = [a for a, keep in zip(self.active, stay) if keep]
        self.state = State(s.weights[index], s.first[index], s.second[index], s.updates[index])
        self._bind()

    def fill_up(self, size: int) -> None:
        """Rows of zeros without a member, up to so many in all."""
        if size > len(self.state.weights):
            more = size - len(self.state.weights)
            s = self.state
            buffers = (s.weights, s.first, s.second, s.updates)
            self.state = State(*(torch.cat((b, b.new_zeros((more, b.shape[1])))) for b in buffers))
            self._bind()

    def snapshot(self, row: int) -> Array:
        """Weights and moments (3, P) of one member, float32, on the host."""
        s = self.state
        return torch.stack((s.weights[row], s.first[row], s.second[row])).cpu().numpy()

    def restore(self, row: int, values: Array, updates: int) -> None:
        for buffer, value in zip((self.state.weights, self.state.first, self.state.second), values):
            buffer[row] = torch.from_numpy(np.array(value))
        self.state.updates[row] = updates

    def _bind(self) -> None:
        found = views(self.state.weights, self.layout)
        self.weights: Weights = {name: view.detach().requires_grad_() for name, view in found.items()}
