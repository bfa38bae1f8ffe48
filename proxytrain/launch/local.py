"""Workers on this machine: started, followed until the last pack is done, and never left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

from proxytrain.compose import quoted
from proxytrain.launch.machine import Machine
from proxytrain.launch.worker import finished, progress, unfinished
from proxytrain.plan.freeze import Plan
from proxytrain.store import Store
from proxytrain.track.console import Console, Progress

POLL_SECONDS = 0.25


def run(plan: Plan, store: Store, here: Machine, console: Console) -> int:
    """Train a plan's packs with workers of this machine; the exit code: 0, 1 if some are not done, 130 if interrupted.

    An interrupt is passed on once: workers save and leave. A worker that dies is not replaced while others live; what
    it held is taken over, and running again goes on from its last checkpoint.
    """
    folder = store.sweep(plan.name)
    for pack in plan.packs:
        (folder / "packs" / pack.id / "failed.json").unlink(missing_ok=True)
    waiting = len(unfinished(plan, store))
    workers = [_start(plan, store, here, i) for i in range(min(here.workers, waiting))]
    watch = _Watch(plan, store)
    interrupted = False
    with console.training(plan) as follow:
        while any(w.poll() is None for w in workers):
            try:
                follow(watch.progress())
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                for worker in workers:
                    worker.send_signal(signal.SIGINT)
                if not interrupted:
                    console.say("saving; interrupt again to leave at once")
                interrupted = True
        follow(watch.progress())
    if interrupted:
        return 130
    for number, worker in enumerate(workers):
        if worker.returncode not in (0, 130):
            console.say(f"worker {number} ended with exit code {worker.returncode}: see {folder}/worker-{number}.log")
    return 0 if len(watch.done) == len(plan.packs) else 1


class _Watch:
    """How far the packs of a plan are; those that were seen done are not looked at again."""

    def __init__(self, plan: Plan, store: Store):
        self.plan, self.store = plan, store
        self.done: dict[str, int] = {}  # pack -> tokens

    def progress(self) -> Progress:
        speed, tokens, reports = 0.0, 0, []
        for pack in self.plan.packs:
            if pack.id in self.done:
                continue
            folder = self.store.sweep(self.plan.name) / "packs" / pack.id
            if report := progress(folder):
                tokens += report["tokens"]
                if (folder / "claim").exists():
                    speed += report["tokens_per_second"]
                    reports.append(report)
            elif finished(pack, self.store):
                self.done[pack.id] = sum(m.tokens for m in pack.members)
        return Progress(tokens + sum(self.done.values()), speed, len(self.done), reports)


def _start(plan: Plan, store: Store, here: Machine, number: int) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": str(here.threads), "MKL_NUM_THREADS": str(here.threads)}
    if here.device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(i) for i in range(here.workers)]
        environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    command = [
        sys.executable,
        "-m",
        "proxytrain",
        "work",
        f"sweep.name={plan.name}",
        f"store={quoted(str(store.root.resolve()))}",
    ]
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
