"""Training of one pack: from published states to published states, every update logged.

Members go in lockstep, each at its own position, rate and text. Between *stops* (the end of a segment, an evaluation, a
flush) there is only the update: forward and backward of all members as one program, the optimizer over flat buffers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from proxytrain.config.schema import Train
from proxytrain.corpus import Corpus
from proxytrain.kernels import cpu as native
from proxytrain.model.gpt import initial
from proxytrain.plan.pack import Pack
from proxytrain.store.documents import How, Key, RunRecord
from proxytrain.store.store import Store
from proxytrain.train import average, checkpoint, evaluate
from proxytrain.train.members import Active, Rows, apart, sound
from proxytrain.train.publish import Broken, Publisher
from proxytrain.train.update import Update

__all__ = ["Broken", "Interrupted", "train_pack"]

FLUSH_UPDATES = 32  # losses are looked at so often
FLUSH_TOKENS = 1 << 20  # and text is read at most so much ahead


class Interrupted(Exception):
    """Training was asked to stop; `saved` tells whether its state could be written."""

    def __init__(self, saved: bool):
        self.saved = saved


def train_pack(
    pack: Pack,
    *,
    wanted: Collection[Key] = (),
    store: Store,
    corpus: Corpus,
    runs: Mapping[str, RunRecord],
    train: Train,
    micro_batches: int,
    compiled: bool,
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
    micro_batches, compiled : how an update is made: in how many parts, and whether as a compiled program
    runs : id -> record of the plan, for `config.yaml` and `result.json`
    folders, attempt : where earlier attempts left checkpoints (the pack's own folder first), and where this one writes
    should_stop : asked after every update; when true the state is saved and `Interrupted` raised
    report : called before the first update, and after every flush

    Raises
    ------
    Interrupted
        When asked to stop, after saving.
    Broken
        If a state that it starts from is not whole; it has been thrown away, and must be made again.
    """
    how = How(
        members=len(pack.members),
        micro_batches=micro_batches,
        compiled=compiled,
        native=not compiled and native.serves(torch.empty(0, device=device)),
        eval_every=train.eval_every,
        eval_tokens=train.eval_tokens,
        telemetry_every=train.telemetry_every,
    )
    publisher = Publisher(store, corpus, runs, device, how, train.keep_weights)
    rows = checkpoint.latest(folders, pack, device) or _start(pack, wanted, publisher, device)
    if rows is None:
        return
    saver = checkpoint.Saver(
        attempt, lambda: [p for p in folders[0].glob("attempt-*") if p != attempt and not p.is_symlink()]
    )
    try:
        recipe = pack.members[0].recipe
        step = Update(rows, recipe, corpus, micro_batches, device, compiled, train.telemetry_every)
        _train(rows, step, publisher, saver, train, should_stop, report)
    finally:
        saver.close()


def _train(
    rows: Rows,
    step: Update,
    publisher: Publisher,
    saver: checkpoint.Saver,
    train: Train,
    should_stop: Callable[[], bool],
    report: Callable[[Rows], None],
) -> None:
    recipe, corpus = step.recipe, step.corpus
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
        average.count(rows)
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
            raise Interrupted(saver.save(rows, wait=True))
        if time.monotonic() - saved > train.checkpoint_seconds and saver.save(rows):
            saved = time.monotonic()


def _start(pack: Pack, wanted: Collection[Key], publisher: Publisher, device: torch.device) -> Rows | None:
    """Rows at the last states that are published, or at the initial weights; None where all is published.

    Members of a diverged parent are published as such.
    """
    active = []
    for index, member in enumerate(pack.members):
        first = publisher.first_missing(member, wanted)
        if first is None:
            continue
        parent = member.segments[first].parent
        a = Active(index=index, member=member, position=member.segments[first].start, at=first)
        before = publisher.meta(parent) if parent else None
        if before and before.status == "diverged":
            publisher.diverged(a, before.diverged_at)
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


def _arrive(a: Active, row: int, rows: Rows, step: Update, publisher: Publisher, whole: evaluate.Text) -> bool:
    """Publish every segment at whose end a member stands; return whether it was the last."""
    while a.position == a.goal.end:
        final, weights = None, rows.state.weights[row : row + 1]
        state = rows.snapshot(row) if publisher.keeps(a.goal) else None
        if a.mean is not None:
            weights = torch.from_numpy(a.mean).to(weights)[None]
            state = None if state is None else np.stack((a.mean.astype(np.float32), *state[1:]))
        if a.goal.run_id:
            final = step.evaluate(weights, whole)[0]
        publisher.segment_done(a, state, final)
        if a.at + 1 == len(a.member.segments):
            return True
        a.at += 1
        a.clear()
    return False


def _until_stop(a: Active, eval_every: int) -> int:
    """Return the updates until the member's segment ends, its next evaluation, or until its weights are averaged."""
    B = a.member.recipe.batch_tokens
    stop = min(a.goal.end, _next_evaluation(a.position, eval_every, B)) - a.position
    return min(stop, average.until_next(a) or stop) // B


def _next_evaluation(position: int, every: int, batch_tokens: int) -> int:
    """The grid of evaluations is one of absolute tokens, rounded up to whole updates."""
    k = position // every + 1
    while (at := -(-k * every // batch_tokens) * batch_tokens) <= position:
        k += 1
    return at


def _evaluate(rows: Rows, step: Update, text: evaluate.Text, every: int) -> None:
    """Losses on the small slice of the members whose position is on the grid."""
    B = rows.active[0].member.recipe.batch_tokens
    due = [i for i, a in enumerate(rows.active) if a.position == _next_evaluation(a.position - B, every, B)]
    if due:
        for i, losses in zip(due, step.evaluate(rows.state.weights[due], text)):
            rows.active[i].curve["eval_tokens"].append(apart(np.array([rows.active[i].position])))
            rows.active[i].curve["eval_loss"].append(apart(losses.mean(keepdims=True)))
