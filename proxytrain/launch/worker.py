"""A worker: takes packs from a frozen plan until none is left. What `sweep` starts here and what a cluster runs.

Whether a pack is done is read off the store, from what its nodes have published; nothing else remembers it.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from proxytrain.launch.claims import Claim, take
from proxytrain.plan.freeze import Plan
from proxytrain.plan.pack import Pack
from proxytrain.plan.share import Key
from proxytrain.store import Store, read_json, write_json

if TYPE_CHECKING:
    from proxytrain.train.members import Rows

POLL_SECONDS = 0.5
REPORT_SECONDS = 1.0


def work(plan: Plan, store: Store, device: str, threads: int) -> int:
    """Train packs until all are done or lost; exit code 0, or 130 if interrupted. Failed packs are on record.

    Waits for packs that others hold, since what they hold may have to be taken over.
    """
    stopping = _listen()
    import torch

    from proxytrain.corpus import load
    from proxytrain.train.loop import Interrupted, train_pack

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    corpus = load(store.corpora(), plan.corpus)
    folders = store.sweep(plan.name) / "packs"
    done: set[str] = set()
    while not stopping() and (left := unfinished(plan, store, done)):
        taken = _next(left, folders, store)
        if taken is None:
            time.sleep(POLL_SECONDS)
            continue
        claim, pack = taken
        with claim.held():
            try:
                train_pack(
                    pack,
                    store=store,
                    corpus=corpus,
                    runs=plan.runs if plan.target is None else {**plan.runs, plan.target["id"]: plan.target},
                    train=plan.train,
                    micro_batches=plan.micro_batches[pack.id],
                    device=torch.device(device),
                    folder=folders / pack.id,
                    attempt=claim.attempt,
                    should_stop=stopping,
                    report=_Reporter(claim, pack),
                )
                for attempt in (folders / pack.id).glob("attempt-*"):
                    shutil.rmtree(attempt, ignore_errors=True)
            except Interrupted:
                break
            except Exception:
                if not finished(pack, store):  # else a worker that took over was faster
                    write_json(folders / pack.id / "failed.json", {"traceback": traceback.format_exc()})
    return 130 if stopping() else 0


def finished(pack: Pack, store: Store) -> bool:
    """Whether all that a pack trains is published."""
    nodes = [n for m in pack.members for n in m.nodes]
    return all(
        _published(store, n.key) and (n.run_id is None or (store.run(n.run_id) / "result.json").exists())
        for n in reversed(nodes)
    )


def unfinished(plan: Plan, store: Store, done: set[str] | None = None) -> list[Pack]:
    """Packs that are still to be trained and can be: not failed, and waiting for nothing that will never come.

    `done` keeps the ids of packs that were seen finished; they are not looked at again.
    """
    left: list[Pack] = []
    coming: set[Key] = set()
    done = set() if done is None else done
    for pack in plan.packs:
        if pack.id not in done and finished(pack, store):
            done.add(pack.id)
        if pack.id in done or (store.sweep(plan.name) / "packs" / pack.id / "failed.json").exists():
            continue
        if all(key in coming or _published(store, key) for key in pack.needs):
            coming.update(n.key for m in pack.members for n in m.nodes)
            left.append(pack)
    return left


def progress(folder: Path) -> dict | None:
    """What the newest attempt at a pack last reported: tokens trained, tokens a second, losses."""
    attempts = sorted(folder.glob("attempt-*"))
    return read_json(attempts[-1] / "progress.json") if attempts else None


def _next(left: list[Pack], folders: Path, store: Store) -> tuple[Claim, Pack] | None:
    """The first pack that can start and that nobody holds."""
    for pack in left:
        if all(_published(store, key) for key in pack.needs) and (claim := take(folders / pack.id)):
            if not finished(pack, store):
                return claim, pack
            claim.release()
            shutil.rmtree(claim.attempt, ignore_errors=True)
    return None


def _published(store: Store, key: Key) -> bool:
    return (store.segment(key) / "segment.json").exists()


class _Reporter:
    """`progress.json` of an attempt, once a second at most."""

    def __init__(self, claim: Claim, pack: Pack):
        self.claim, self.pack = claim, pack
        self.total = sum(m.tokens for m in pack.members)
        self.last = self.first = time.monotonic()
        self.begun: int | None = None

    def __call__(self, rows: Rows) -> None:
        done = self.total - sum(a.member.end - a.position for a in rows.active)
        if self.begun is None:
            self.begun = done
        now = time.monotonic()
        if now - self.last < REPORT_SECONDS:
            return
        self.last = now
        content = {
            "tokens": done,
            "total": self.total,
            "tokens_per_second": (done - self.begun) / (now - self.first),
            "members": len(rows.active),
            "width": self.pack.members[0].recipe.model.width,
            "loss": [round(float(a.curve["loss"][-1][-1]), 4) for a in rows.active],
        }
        path = self.claim.attempt / "progress.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(content))
        temporary.replace(path)


def _listen() -> Callable[[], bool]:
    """Signals that ask to save and stop; the second SIGINT ends at once."""
    asked: list[int] = []

    def handler(number: int, frame: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, handler)
    return lambda: bool(asked)
