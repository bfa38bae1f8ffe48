"""The update of all members of a pack: text, forward, backward, optimizer, and the rows of their curves.

Members are one program; losses stay on the device and are read once a block of updates. Members that read the same text
share one copy of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch

from proxytrain.arrays import Array
from proxytrain.config.recipe import Recipe
from proxytrain.config.schedule import learning_rates
from proxytrain.corpus import Corpus, Stream
from proxytrain.model.gpt import initial, objective
from proxytrain.model.parametrization import scales
from proxytrain.optim.multipliers import multipliers
from proxytrain.optim.update import flattened, update
from proxytrain.plan.pack import Pack
from proxytrain.train import evaluate, program, telemetry
from proxytrain.train.evaluate import Text
from proxytrain.train.members import Active, Rows, apart
from proxytrain.train.trace import UPDATES

EVALUATE_TOKENS = 4096  # at most so many at once


def fresh(pack: Pack, corpus: Corpus, micro_batches: int, device: torch.device, compiled: bool = False) -> Update:
    """The update of a pack whose members stand at their initial weights: for measurements, which train nothing."""
    active = [Active(index=i, member=m, position=m.start) for i, m in enumerate(pack.members)]
    rows = Rows.allocate(active, device)
    for i, member in enumerate(pack.members):
        r = member.recipe
        rows.state.weights[i] = initial(rows.layout, r.model, r.parametrization, r.init_seed).to(device)
    return Update(rows, pack.members[0].recipe, corpus, micro_batches, device, compiled)


class Update:
    """The update of the members of `rows`, whoever of them is left, operation by operation or `compiled`."""

    def __init__(
        self,
        rows: Rows,
        recipe: Recipe,
        corpus: Corpus,
        micro_batches: int,
        device: torch.device,
        compiled: bool = False,
        telemetry_every: int = 0,
    ):
        self.rows, self.recipe, self.device = rows, recipe, device
        self.corpus, self.micro_batches, self.compiled = corpus, micro_batches, compiled
        self.telemetry_every = telemetry_every  # updates, counted from a run's start; 0: never
        self.largest = len(rows.active)
        self.program: program.Program | None = None
        self.scales = scales(recipe.model, recipe.parametrization)
        self.multipliers = multipliers(rows.layout, recipe.model, recipe.parametrization, recipe.optimizer, device)
        self.streams: dict[int, Stream] = {}
        self.ahead: dict[tuple[int, int], Array] = {}  # text that was read while a GPU was at work

    def evaluate(self, flat: torch.Tensor, text: Text) -> Array:
        model = self.recipe.model
        chunk = max(1, min(self.recipe.batch_tokens, EVALUATE_TOKENS) // model.context)
        with program.autocast(self.recipe.precision, self.device.type):
            return evaluate.losses(flat, self.rows.layout, model, self.scales, text, chunk)

    def updates(self, count: int, should_stop: Callable[[], bool]) -> None:
        """Up to `count` updates, fewer when asked to stop; curves and positions follow."""
        rows, B = self.rows, self.recipe.batch_tokens
        K, device = len(rows.active), self.device
        optimizers = [a.member.recipe.optimizer for a in rows.active]
        tokens = np.stack([a.position + B * np.arange(1, count + 1) for a in rows.active])  # (K, count)
        lr = np.stack([learning_rates(a.member.segments[-1].phases, t) for a, t in zip(rows.active, tokens)])
        coupled = self.recipe.optimizer.decay == "coupled"
        peak = np.array([1.0 if coupled else a.goal.lr for a in rows.active])[:, None]
        decay = np.array([o.weight_decay for o in optimizers])[:, None] * lr / peak
        clip = torch.tensor([[o.clip or float("inf")] for o in optimizers], device=device)
        lr_t, decay_t = torch.from_numpy(lr).to(device), torch.from_numpy(decay).to(device)
        ids, targets = self._text(count)  # (K or 1, count, B, T)
        step = self._program(clip) if self.compiled else functools.partial(self._eager, clip)
        log = torch.empty((count, 2, K), device=device)
        due = tokens // B % self.telemetry_every == 0 if self.telemetry_every else np.zeros_like(tokens, bool)
        samples = []
        for u in range(count):
            sample = self._sample(due[:, u], ids[:, u])
            see = sample.gradient if sample else None
            loss, norm = step(ids[:, u], targets[:, u], lr_t[:, u : u + 1], decay_t[:, u : u + 1], see)
            log[u, 0], log[u, 1] = loss[:K], norm[:K, 0]
            if sample:
                samples.append((u, sample.at, sample.after(rows.state, self.multipliers)))
            if should_stop():
                count = u + 1
                break
        if device.type == "cuda":
            after = [(a.member.recipe.data_seed, a.position + count * B) for a in rows.active]
            self.ahead = self._read(list(dict.fromkeys(after)), count)
        values = log[:count].cpu().double().permute(1, 2, 0).numpy()  # (2, K, count)
        tokens, curves = apart(tokens[:, :count]), apart(np.stack([lr[:, :count], *values]))
        for k, a in enumerate(rows.active):
            a.position += count * B
            for name, piece in zip(UPDATES, (tokens[k], *curves[:, k])):
                a.curve[name].append(piece)
        for u, at, seen in samples:
            for k, values in zip(at.tolist(), apart(seen.cpu().numpy())):
                rows.active[k].curve["telemetry_tokens"].append(tokens[k, u : u + 1])
                rows.active[k].curve["telemetry"].append(values[None])

    def _sample(self, due: Array, ids: torch.Tensor) -> telemetry.Sample | None:
        """A look at the members that are due (K,), before the update with inputs `ids` (K or 1, B, T)."""
        if not due.any():
            return None
        at = torch.from_numpy(np.flatnonzero(due)).to(self.device)
        own = ids if len(ids) == 1 else ids[at]
        return telemetry.Sample(self.rows.state.weights, at, own, self.recipe, self.scales)

    def _program(self, clip: torch.Tensor) -> program.Program:
        """The program of the rows as they are; another one once members have left."""
        if self.program is None or self.program.state is not self.rows.state:
            sequences = self.recipe.batch_tokens // self.recipe.model.context
            self.rows.fill_up(program.rows(len(self.rows.active), self.largest, sequences))
            self.program = program.Program(self.rows.state, self.recipe, self.micro_batches, self.multipliers, clip)
        return self.program

    def _eager(
        self,
        clip: torch.Tensor,
        ids: torch.Tensor,
        targets: torch.Tensor,
        lr: torch.Tensor,
        decay: torch.Tensor,
        see: Callable[[torch.Tensor], None] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses (K,) and gradient norms (K, 1) of one update; ids and targets (K or 1, B, T), the rest (K, 1).

        `see` is shown the gradients (K, P) before they are clipped.
        """
        rows, K = self.rows, len(self.rows.active)
        grads, loss = self._gradients(ids.expand(K, -1, -1), targets.expand(K, -1, -1))
        if see:
            see(flattened(grads, rows.layout))
        norm = update(
            rows.state,
            grads,
            self.recipe.optimizer,
            rows.layout,
            lr=lr,
            decay=decay,
            clip=clip,
            by=self.multipliers,
        )
        return loss, norm

    def _gradients(self, ids: torch.Tensor, targets: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Gradients of the members' mean losses, (K, *shape) a weight, and the losses (K,)."""
        K, B, _ = ids.shape
        r, total = self.recipe, torch.zeros(K, device=self.device)
        weights, grads = list(self.rows.weights.values()), list[torch.Tensor]()
        parts = (x.tensor_split(self.micro_batches, 1) for x in (ids, targets))
        for part, goal in zip(*parts):
            share = part.shape[1] / B
            with program.autocast(r.precision, self.device.type):
                minimised, loss = objective(self.rows.weights, part, goal, r.model, self.scales, r.optimizer.z_loss)
            found = torch.autograd.grad((minimised * share).sum(), weights)
            grads = [g.add_(more) for g, more in zip(grads, found)] if grads else list(found)
            total += loss * share
        return grads, total

    def _text(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets (K or 1, count, B, T) of the next updates; one copy where all members read the same."""
        B, T = self.recipe.batch_tokens, self.recipe.model.context
        wanted = [(a.member.recipe.data_seed, a.position) for a in self.rows.active]
        unique = list(dict.fromkeys(wanted))
        read = self._read(unique, count)
        windows = torch.from_numpy(np.stack([read[w] for w in unique])).to(self.device).long()
        if len(unique) > 1:
            windows = windows[[unique.index(w) for w in wanted]]
        windows = windows.view(-1, count, B // T, T + 1)
        return windows[..., :-1], windows[..., 1:]

    def _read(self, wanted: list[tuple[int, int]], count: int) -> dict[tuple[int, int], Array]:
        """Sequences of the next updates from (data seed, position) on, as `Stream.windows` gives them."""
        B, T = self.recipe.batch_tokens, self.recipe.model.context
        found = {}
        for seed, position in wanted:
            ready = self.ahead.get((seed, position))
            if ready is None or len(ready) < count * B // T:
                stream = self.streams.setdefault(seed, Stream(self.corpus.train, T, seed))
                ready = stream.windows(position, count * B)
            found[seed, position] = ready[: count * B // T]
        return found
