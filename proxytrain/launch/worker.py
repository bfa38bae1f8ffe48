"""A worker: takes packs from a frozen plan until none is left. What `sweep` starts here and what a cluster runs."""

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
BEAT_SECONDS = 1.0


def work(plan: Plan, store: Store, device: str, threads: int) -> int:
    """Train packs until all are done; the exit code of the worker: 0, 1 if a pack failed, 130 if interrupted.

    Waits for packs that others hold, since what they hold may have to be taken over.
    """
    stopping = _listen()
    import torch

    from proxytrain.corpus import load
    from proxytrain.train.loop import Interrupted, train_pack

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    corpus = load(store.corpora(), plan.corpus)
    root = store.sweep(plan.name) / "packs"
    while not stopping() and (left := _left(plan, root, store)):
        taken = _next(left, root, store)
        if taken is None:
            time.sleep(POLL_SECONDS)
            continue
        claim, pack = taken
        try:
            train_pack(
                pack,
                store=store,
                corpus=corpus,
                runs=plan.runs if plan.target is None else {**plan.runs, plan.target["id"]: plan.target},
                train=plan.train,
                micro_batches=plan.micro_batches[pack.id],
                device=torch.device(device),
                folder=root / pack.id,
                attempt=claim.attempt,
                should_stop=stopping,
                report=_Reporter(claim, pack),
            )
            write_json(root / pack.id / "done.json", {"attempt": claim.attempt.name})
            for attempt in (root / pack.id).glob("attempt-*"):
                shutil.rmtree(attempt, ignore_errors=True)
        except Interrupted:
            break
        except Exception:
            if not settled(root / pack.id):  # else a worker that took over was faster
                write_json(root / pack.id / "failed.json", {"traceback": traceback.format_exc()})
        finally:
            claim.release()
    if stopping():
        return 130
    return 1 if any((root / p.id / "failed.json").exists() for p in plan.packs) else 0


def settled(folder: Path) -> bool:
    """Whether a pack is done, or has failed."""
    return (folder / "done.json").exists() or (folder / "failed.json").exists()


def progress(folder: Path) -> dict | None:
    """What the newest attempt at a pack last reported: tokens trained, tokens a second, losses."""
    attempts = sorted(folder.glob("attempt-*"))
    return read_json(attempts[-1] / "progress.json") if attempts else None


def _left(plan: Plan, root: Path, store: Store) -> list[Pack]:
    """Packs that are not settled, without those that wait for a state which a failed pack will never publish."""
    left: list[Pack] = []
    lost: set[Key] = set()
    for pack in plan.packs:
        if (root / pack.id / "done.json").exists():
            continue
        if (root / pack.id / "failed.json").exists() or any(k in lost and not _published(store, k) for k in pack.needs):
            lost.update(n.key for m in pack.members for n in m.nodes)
        else:
            left.append(pack)
    return left


def _next(left: list[Pack], root: Path, store: Store) -> tuple[Claim, Pack] | None:
    """The first pack that can start and that nobody holds."""
    for pack in left:
        if all(_published(store, key) for key in pack.needs) and (claim := take(root / pack.id)):
            if not settled(root / pack.id):
                return claim, pack
            claim.release()
    return None


def _published(store: Store, key: Key) -> bool:
    return (store.segment(key) / "segment.json").exists()


class _Reporter:
    """Heartbeat of the claim and `progress.json` of the attempt, once a second at most."""

    def __init__(self, claim: Claim, pack: Pack):
        self.claim, self.pack = claim, pack
        self.total = sum(m.tokens for m in pack.members)
        self.last = self.first = time.monotonic()
        self.begun: int | None = None

    def __call__(self, rows: Rows) -> None:
        left = sum(a.member.end - a.position for a in rows.active)
        if self.begun is None:
            self.begun = self.total - left
        now = time.monotonic()
        if now - self.last < BEAT_SECONDS:
            return
        self.last = now
        self.claim.beat()
        done = self.total - left
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
