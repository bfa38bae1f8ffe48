"""Workers on this machine: started, followed until the last pack is settled, and never left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from proxytrain.launch.machine import Machine
from proxytrain.launch.worker import progress, settled
from proxytrain.plan.freeze import Plan
from proxytrain.store import Store
from proxytrain.track.console import Console, Progress

POLL_SECONDS = 0.25


def run(plan: Plan, store: Store, here: Machine, console: Console) -> int:
    """Train a plan's packs with workers of this machine; the exit code: 0, 1 if packs failed, 130 if interrupted.

    An interrupt is passed on once: workers save and leave. A worker that dies is not replaced while others live; what
    it held is taken over, and running again goes on from its last checkpoint.
    """
    folder = store.sweep(plan.name)
    packs = [folder / "packs" / p.id for p in plan.packs]
    for pack in packs:
        (pack / "failed.json").unlink(missing_ok=True)
    waiting = sum(not settled(p) for p in packs)
    if not waiting:
        return 0
    workers = [_start(plan, store, here, i) for i in range(min(here.workers, waiting))]
    interrupted = False
    with console.training(plan) as follow:
        while any(w.poll() is None for w in workers):
            try:
                follow(_progress(plan, packs))
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                for worker in workers:
                    worker.send_signal(signal.SIGINT)
                if not interrupted:
                    console.say("saving; interrupt again to leave at once")
                interrupted = True
        follow(_progress(plan, packs))
    if interrupted:
        return 130
    dead = [w.returncode for w in workers if w.returncode not in (0, 1, 130)]
    if dead and not all(settled(p) for p in packs):
        console.say(
            f"a worker ended with exit code {dead[0]}; see {folder}/worker-*.log, then run the same command again"
        )
    return 0 if all((p / "done.json").exists() for p in packs) else 1


def _progress(plan: Plan, packs: list[Path]) -> Progress:
    tokens, speed, reports = 0, 0.0, []
    for pack, folder in zip(plan.packs, packs):
        if (folder / "done.json").exists():
            tokens += sum(m.tokens for m in pack.members)
        elif report := progress(folder):
            tokens += report["tokens"]
            if (folder / "claim").exists():
                speed += report["tokens_per_second"]
                reports.append(report)
    return Progress(tokens, speed, sum(settled(p) for p in packs), reports)


def _start(plan: Plan, store: Store, here: Machine, number: int) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": str(here.threads), "MKL_NUM_THREADS": str(here.threads)}
    if here.device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(i) for i in range(here.workers)]
        environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    command = [sys.executable, "-m", "proxytrain", "work", f"sweep.name={plan.name}", f"store={store.root.resolve()}"]
    command += [f"train.device={here.device}", f"launch.threads={here.threads}"]
    with open(store.sweep(plan.name) / f"worker-{number}.log", "ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C reaches us alone, and we pass it on
            preexec_fn=_die_with_parent,
        )


def _die_with_parent() -> None:
    """A worker whose parent is killed saves and leaves (PR_SET_PDEATHSIG = 1)."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)
