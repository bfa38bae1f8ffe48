"""Workers on this machine: started, followed until the last pack is done, and never left behind."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import time

from proxytrain.config.overrides import quoted
from proxytrain.config.schema import Local
from proxytrain.files.atomic import open_log
from proxytrain.launch.machine import Machine
from proxytrain.monitor.console import Console
from proxytrain.monitor.watch import Watch
from proxytrain.plan.freeze import Plan
from proxytrain.plan.parts import finished, retry, unfinished
from proxytrain.store.store import Store

WORKER_LOOK_SECONDS = 0.25
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def run(plan: Plan, store: Store, here: Machine, launch: Local, console: Console) -> int:
    """Train a plan's packs with workers of this machine; the exit code: 0, 1 if some are not done, 130 if interrupted.

    SIGINT, SIGTERM and SIGUSR1 are passed on: workers save and leave, and are waited for. A worker that dies is not
    replaced while others live; what it held is taken over, and running again goes on from its last checkpoint.
    """
    folder = store.sweep(plan.name)
    retry(plan, store)
    asked: list[int] = []  # signals to pass on
    handlers = {n: signal.signal(n, lambda number, frame: asked.append(number)) for n in PASSED_ON}
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(min(here.workers, len(unfinished(plan, store)))):
            workers.append(_start(plan, store, here, launch, number))
        stopped = _follow(workers, asked, Watch(plan, store), console)
    finally:
        for worker in workers:  # after an error here
            if worker.poll() is None:
                worker.terminate()
                worker.wait()
        for n, handler in handlers.items():
            signal.signal(n, handler)
    for number, worker in enumerate(workers):
        if worker.returncode not in (0, 1, 130):
            log = folder / f"worker-{number}.log"
            last = log.read_text(errors="replace").strip().rpartition("\n")[2][:500]
            console.say(f"worker {number} ended with exit code {worker.returncode} ({log}): {last}")
    left = unfinished(plan, store)
    if stopped or (left and any(w.returncode == 130 for w in workers)):
        return 130
    return int(not all(finished(p, store) for p in plan.packs))


def _follow(workers: list[subprocess.Popen[bytes]], asked: list[int], watch: Watch, console: Console) -> bool:
    """Show progress until the last worker has left, passing signals on; whether there were any."""
    passed = 0
    with console.training() as view:
        while alive := sum(w.poll() is None for w in workers):
            if view.due():
                view.show(watch.look(alive))
            time.sleep(WORKER_LOOK_SECONDS)
            while passed < len(asked):
                for worker in workers:
                    worker.send_signal(asked[passed])
                if not passed:
                    console.say("saving; interrupt again to leave at once")
                passed += 1
        if not console.quiet:
            view.show(watch.look(), final=True)
    return bool(asked)


def _start(plan: Plan, store: Store, here: Machine, launch: Local, number: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(here.threads), "MKL_NUM_THREADS": str(here.threads)}
    if here.gpus:
        gpu = here.gpus[number % len(here.gpus)]
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[gpu] if visible else str(gpu)
    command = [
        sys.executable,
        "-m",
        "proxytrain",
        "work",
        f"sweep.name={plan.name}",
        f"store={quoted(str(store.root.resolve()))}",
    ]
    command += [f"train.device={here.device}", f"launch.threads={here.threads}"]
    command += [f"launch.stale_seconds={launch.stale_seconds}"]
    if launch.time_limit:
        command.append(f"launch.time_limit={launch.time_limit}")
    with open_log(store.sweep(plan.name) / f"worker-{number}.log") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C reaches us alone, and we pass it on
            preexec_fn=functools.partial(_die_with_parent, os.getpid()),
        )


def _die_with_parent(parent: int) -> None:
    """A worker whose parent is killed saves and leaves (PR_SET_PDEATHSIG = 1)."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)
    if os.getppid() != parent:  # it was killed before the line above
        os._exit(1)
