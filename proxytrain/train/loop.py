"""Training of one pack: from published states to published states, every update logged.

Members go in lockstep, each at its own position, rate and text. Between *stops* (a node, an evaluation, a flush) there
is only the update: forward and backward of all members as one program, AdamW over the flat buffers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch

from proxytrain.config import Train
from proxytrain.corpus import Corpus, Stream
from proxytrain.model import cross_entropy, initial, logits
from proxytrain.optimizer import adamw, rates
from proxytrain.plan.pack import Pack
from proxytrain.plan.share import Key
from proxytrain.runs import Recipe
from proxytrain.schedule import learning_rates
from proxytrain.store import Store
from proxytrain.train import checkpoint, evaluate
from proxytrain.train.export import readout_scale
from proxytrain.train.members import Active, Rows, sound
from proxytrain.train.publish import Broken, Publisher

__all__ = ["Broken", "Interrupted", "train_pack"]

FLUSH_UPDATES = 32  # losses are looked at so often
EVALUATE_TOKENS = 4096  # at most so many at once
FLUSH_TOKENS = 1 << 20  # and text is read at most so much ahead


class Interrupted(Exception):
    """Training was asked to stop; all is saved."""


def train_pack(
    pack: Pack,
    *,
    wanted: Collection[Key] = (),
    store: Store,
    corpus: Corpus,
    runs: dict[str, dict],
    train: Train,
    micro_batches: int,
    device: torch.device,
    folders: Sequence[Path],
    attempt: Path,
    should_stop: Callable[[], bool],
    report: Callable[[Rows], None],
) -> None:
    """Train a pack to its end, from its furthest checkpoint.

    Parameters
    ----------
    wanted : states that others start from; they are made again where a published segment has lost its own
    runs : id -> record of the plan, for `config.yaml` and `result.json`
    folders, attempt : where earlier attempts left checkpoints (the pack's own folder first), and where this one writes
    should_stop : asked after every update; when true the state is saved and `Interrupted` raised
    report : called before the first update, and after every flush

    Raises
    ------
    Interrupted
        After saving, when asked to stop.
    Broken
        If a state that it starts from is not whole; it has been thrown away, and must be made again.
    """
    how = {"members": len(pack.members), "micro_batches": micro_batches}
    how |= {"eval_every": train.eval_every, "eval_tokens": train.eval_tokens}
    publisher = Publisher(store, corpus, runs, device, how, train.keep_weights)
    rows = checkpoint.latest(folders, pack, device) or _start(pack, wanted, publisher, device)
    if rows is None:
        return
    saver = checkpoint.Saver(
        attempt, lambda: [p for p in folders[0].glob("attempt-*") if p != attempt and not p.is_symlink()]
    )
    try:
        _train(rows, publisher, saver, train, micro_batches, should_stop, report)
    finally:
        saver.close()


def _train(
    rows: Rows,
    publisher: Publisher,
    saver: checkpoint.Saver,
    train: Train,
    micro_batches: int,
    should_stop: Callable[[], bool],
    report: Callable[[Rows], None],
) -> None:
    recipe, corpus = rows.active[0].member.recipe, publisher.corpus
    step = Update(rows, recipe, corpus, micro_batches, publisher.device)
    slice_ = evaluate.sequences(corpus.val, recipe.model.context, train.eval_tokens)
    whole = evaluate.sequences(corpus.val, recipe.model.context)
    report(rows)
    saved = time.monotonic()
    while True:
        leave = [_arrive(a, i, rows, step, publisher, whole) for i, a in enumerate(rows.active)]
        if any(leave):
            if all(leave):
                return
            rows.keep([not x for x in leave])
        began = time.monotonic()
        count = min(min(_until_stop(a, train.eval_every) for a in rows.active), FLUSH_UPDATES)
        step.updates(max(1, min(count, FLUSH_TOKENS // recipe.batch_tokens)), should_stop)
        for a in rows.active:
            a.seconds += (time.monotonic() - began) / len(rows.active)
        _evaluate(rows, step, slice_, train.eval_every)
        report(rows)
        diverged = [
            a for a in rows.active if not sound(a.curve["loss"][-1], a.curve["grad_norm"][-1], recipe.vocab).all()
        ]
        if diverged:
            for a in diverged:
                publisher.diverged(a)
            stay = [a not in diverged for a in rows.active]
            if not any(stay):
                return
            rows.keep(stay)
        if should_stop():
            saver.save(rows, wait=True)
            raise Interrupted
        if time.monotonic() - saved > train.checkpoint_seconds and saver.save(rows):
            saved = time.monotonic()


def _start(pack: Pack, wanted: Collection[Key], publisher: Publisher, device: torch.device) -> Rows | None:
    """Rows at the last states that are published, or at the initial weights; None where all is published.

    Members of a diverged parent are published as such.
    """
    active = []
    for index, member in enumerate(pack.members):
        node = publisher.first_missing(member, wanted)
        if node is None:
            continue
        parent = member.nodes[node].parent
        a = Active(index, member, member.nodes[node].start, node)
        before = publisher.segment(parent) if parent else {}
        if before.get("status") == "diverged":
            publisher.diverged(a, before["diverged_at"])
        else:
            active.append(a)
    if not active:
        return None
    rows = Rows.allocate(active, device)
    for i, a in enumerate(active):
        r = a.member.recipe
        if a.goal.parent:
            rows.restore(i, publisher.state(a.goal.parent), a.position // r.batch_tokens)
        else:
            rows.state.weights[i] = initial(rows.layout, r.model, r.parametrization, r.init_seed).to(device)
    return rows


def _arrive(a: Active, row: int, rows: Rows, step: Update, publisher: Publisher, whole: tuple) -> bool:
    """Publish every node that a member stands on; true when it was the last."""
    while a.position == a.goal.end:
        final = None
        if a.goal.run_id:
            final = step.evaluate(rows.state.weights[row : row + 1], whole)[0]
        kept = publisher.keeps(a.goal)
        publisher.segment_done(a, rows.snapshot(row) if kept else None, final)
        if a.node + 1 == len(a.member.nodes):
            return True
        a.node += 1
        a.clear()
    return False


def _until_stop(a: Active, eval_every: int) -> int:
    """Updates until the member's next node or evaluation."""
    B = a.member.recipe.batch_tokens
    return (min(a.goal.end, _next_evaluation(a.position, eval_every, B)) - a.position) // B


def _next_evaluation(position: int, every: int, batch_tokens: int) -> int:
    """The grid of evaluations is one of absolute tokens, rounded up to whole updates."""
    k = position // every + 1
    while (at := -(-k * every // batch_tokens) * batch_tokens) <= position:
        k += 1
    return at


def _evaluate(rows: Rows, step: Update, text: tuple, every: int) -> None:
    """Losses on the small slice of the members whose position is on the grid."""
    B = rows.active[0].member.recipe.batch_tokens
    due = [i for i, a in enumerate(rows.active) if a.position == _next_evaluation(a.position - B, every, B)]
    if due:
        for i, losses in zip(due, step.evaluate(rows.state.weights[due], text)):
            rows.active[i].curve["eval_tokens"].append(np.array([rows.active[i].position]))
            rows.active[i].curve["eval_loss"].append(np.array([losses.mean()]))


class Update:
    """The update of all members: text, forward, backward, AdamW."""

    def __init__(self, rows: Rows, recipe: Recipe, corpus: Corpus, micro_batches: int, device: torch.device):
        self.rows, self.recipe, self.device = rows, recipe, device
        self.corpus, self.micro_batches = corpus, micro_batches
        self.scale = readout_scale(recipe.model, recipe.parametrization)
        self.multipliers = [t.to(device) for t in rates(rows.layout, recipe.model, recipe.parametrization)]
        self.streams: dict[int, Stream] = {}

    def precision(self) -> AbstractContextManager:
        if self.recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def evaluate(self, flat: torch.Tensor, text: tuple) -> np.ndarray:
        model = self.recipe.model
        chunk = max(1, min(self.recipe.batch_tokens, EVALUATE_TOKENS) // model.context)
        with self.precision():
            return evaluate.losses(flat, self.rows.layout, model, self.scale, text, chunk)

    def updates(self, count: int, should_stop: Callable[[], bool]) -> None:
        """Up to `count` updates, fewer when asked to stop; curves and positions follow."""
        rows, B = self.rows, self.recipe.batch_tokens
        K, device, state = len(rows.active), self.device, rows.state
        optimizers = [a.member.recipe.optimizer for a in rows.active]
        tokens = np.stack([a.position + B * np.arange(1, count + 1) for a in rows.active])  # (K, count)
        lr = np.stack([learning_rates(a.member.nodes[-1].phases, t) for a, t in zip(rows.active, tokens)])
        peak = np.array([a.goal.lr for a in rows.active])[:, None]
        decay = np.array([o.weight_decay for o in optimizers])[:, None] * lr / peak
        clip = torch.tensor([[o.clip or float("inf")] for o in optimizers], device=device)
        lr_t, decay_t = torch.from_numpy(lr).to(device), torch.from_numpy(decay).to(device)
        ids, targets = self._text(count)  # (K or 1, count, B, T)
        log = torch.empty((count, 2, K), device=device)
        for u in range(count):
            rows.grad.zero_()
            log[u, 0] = self._gradients(ids[:, u].expand(K, -1, -1), targets[:, u].reshape(-1, B).expand(K, -1))
            log[u, 1] = adamw(
                state,
                rows.grad,
                self.recipe.optimizer,
                lr=lr_t[:, u : u + 1],
                decay=decay_t[:, u : u + 1],
                clip=clip,
                lr_multiplier=self.multipliers[0],
                decay_multiplier=self.multipliers[1],
            )[:, 0]
            if should_stop():
                count = u + 1
                break
        values = log[:count].cpu().double().numpy()
        for k, a in enumerate(rows.active):
            a.position += count * B
            pieces = (tokens[k], lr[k], values[:, 0, k], values[:, 1, k])
            for name, piece in zip(("tokens", "lr", "loss", "grad_norm"), pieces):
                a.curve[name].append(piece[:count])

    def _gradients(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Adds the gradients of the members' mean losses to the rows; returns the losses (K,)."""
        K, B, T = ids.shape
        z_loss = self.recipe.optimizer.z_loss
        total = torch.zeros(K, device=self.device)
        parts = (x.view(K, B, T).tensor_split(self.micro_batches, 1) for x in (ids, targets))
        for part, goal in zip(*parts):
            with self.precision():
                out = logits(self.rows.weights, part, self.recipe.model, self.scale)
            share = part.shape[1] / B
            loss = cross_entropy(out, goal.reshape(K, -1)).mean(1) * share
            objective = loss.sum()
            if z_loss:
                objective = objective + z_loss * share * out.float().logsumexp(2).square().mean(1).sum()
            objective.backward()
            total += loss.detach()
        return total

    def _text(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of the next updates; one copy where all members read the same."""
        B, T = self.recipe.batch_tokens, self.recipe.model.context
        wanted = [(a.member.recipe.data_seed, a.position) for a in self.rows.active]
        texts = {}
        for seed, position in dict.fromkeys(wanted):
            stream = self.streams.setdefault(seed, Stream(self.corpus.train, T, seed))
            texts[seed, position] = stream.read(position, count * B)
        chosen = [texts[w] for w in (wanted[:1] if len(texts) == 1 else wanted)]
        both = (torch.from_numpy(np.stack([c[i] for c in chosen])).to(self.device) for i in (0, 1))
        ids, targets = (x.view(len(chosen), count, B // T, T) for x in both)
        return ids, targets
