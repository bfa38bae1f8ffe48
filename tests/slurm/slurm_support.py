"""What tests on a SLURM share: a small sweep, its queue and its claims, and waiting for what must come."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from support import ENDLESS, TINY, TINY_TEXT, proxytrain

from proxytrain.launch import slurm

SHORT = [*TINY_TEXT, *TINY, "sweep.name=s", "sweep.grids=[{tokens:[8192,16384],init_seed:[0,1]}]"]
ONE = ["launch=slurm", "launch.workers=1"]
LONG = [*TINY_TEXT, *TINY, "sweep.name=s", *ENDLESS, *ONE]  # trains until it is cancelled
Found = TypeVar("Found")


def workplace(folder: Path, corpora: Path) -> Path:
    """A working directory whose store shares the prepared corpus; its sweep's folder."""
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "corpora").symlink_to(corpora)
    return folder / "runs" / "sweeps" / "s"


def submit(*overrides: str, cwd: Path) -> str:
    """The job of the workers that were submitted."""
    return proxytrain("submit", *overrides, cwd=cwd).stdout.split("job ")[1].split(":")[0]


def status(cwd: Path, check: int | None = 0) -> str:
    return proxytrain("status", "sweep.name=s", cwd=cwd, check=check).stdout


def until(condition: Callable[[], Found], what: str, seconds: float = 300) -> Found:
    """What a condition returns once that is true; fails with the logs of the sweep's tasks in view."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s; the queue:\n{ask('squeue')}"
        time.sleep(0.2)
    return found


def empty(sweep: Path) -> Callable[[], bool]:
    """Whether the queue holds no job of a sweep."""
    return lambda: not slurm.jobs(sweep)


def held(sweep: Path) -> list[dict]:
    """Claims of a sweep whose pack has trained for a moment."""
    at_work = [p for p in sweep.glob("packs/*/claim") if list(p.parent.glob("attempt-*/progress.json"))]
    return [json.loads(p.read_text()) for p in at_work]


def saved(sweep: Path) -> int:
    """Tokens in the furthest checkpoint of a sweep."""
    metas = [json.loads(np.load(p)["meta"].tobytes()) for p in sweep.glob("packs/*/attempt-*/state-*.npz")]
    return max((sum(m["position"] for m in meta["members"]) for meta in metas), default=0)


def goes_on(sweep: Path, cwd: Path) -> bool:
    """Whether a sweep that is in the queue goes on from its checkpoint; it is cancelled then."""
    before = saved(sweep)
    until(lambda: held(sweep), "going on")
    proxytrain("cancel", "sweep.name=s", cwd=cwd)
    until(empty(sweep), "cancelling")
    return saved(sweep) > before


def logs(sweep: Path) -> str:
    return "\n".join(p.read_text() for p in sorted(sweep.glob("slurm/*.log")))


def ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def job_field(job: str, name: str) -> str:
    """A field of what SLURM says of a job, such as ExitCode."""
    return ask("scontrol", "show", "job", job).split(f"{name}=")[1].split()[0]
