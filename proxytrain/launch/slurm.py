"""SLURM's commands: submit a sweep's workers, see them in the queue, cancel them, and from within a task requeue it.

What becomes of a run is never read from SLURM: workers publish into the store, and the store is asked. The jobs of a
sweep are those of this user with the sweep's folder as their comment; a script submitted by hand counts as well.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from proxytrain.config.schema import Slurm
from proxytrain.errors import RequestError
from proxytrain.files.atomic import write_text

BLAME = {"partition": "partition", "time": "time", "generic resource": "gpus", "gres": "gpus"}  # word of sbatch -> key


@dataclass(frozen=True)
class Job:
    """A job, an array task, or what waits of an array (12_[4-7]), as the queue shows it."""

    id: str
    state: str
    nodes: str
    reason: str

    def __str__(self) -> str:
        return f"{self.id} {self.state.lower()} " + (f"on {self.nodes}" if self.nodes else f"({self.reason})")

    @property
    def array(self) -> str:
        return self.id.partition("_")[0]


def submit(launch: Slurm, folder: Path, scripts: dict[str, str]) -> dict[str, str]:
    """Keep a sweep's scripts in its folder and submit them; the job of each. `finish` waits for all workers.

    Raises
    ------
    RequestError
        If sbatch refuses one of them; then none is in the queue.
    """
    paths = {what: folder / "slurm" / f"{what}.sh" for what in scripts}
    for what, path in paths.items():
        _keep(path, scripts[what])
    ids = {"work": _sbatch(launch, paths["work"])}
    if "finish" in paths:
        try:
            workers = {ids["work"], *(job.array for job in jobs(folder) if "_" in job.id)}
            ids["finish"] = _sbatch(launch, paths["finish"], f"--dependency=afterany:{':'.join(sorted(workers))}")
        except BaseException:
            _ask("scancel", ids["work"])
            raise
    return ids


def queue() -> dict[str, list[Job]]:
    """This user's jobs in the queue by the folder of their sweep.

    Raises
    ------
    RequestError
        If there is no squeue, or it does not answer.
    """
    done = _ask("squeue", f"--user={os.getuid()}", "--noheader", "--format=%i|%T|%N|%r|%k")
    if done.returncode:
        raise RequestError(f"launch=slurm: squeue does not answer: {_one_line(done.stderr)}")
    found: dict[str, list[Job]] = {}
    for fields in (line.split("|", 4) for line in done.stdout.splitlines()):
        if len(fields) == 5:
            found.setdefault(fields[4], []).append(Job(*fields[:4]))
    return found


def jobs(folder: Path) -> list[Job]:
    """Jobs of a sweep that are in the queue; raises as `queue` does."""
    return queue().get(str(folder.resolve()), [])


def cancel(folder: Path) -> list[str]:
    """Cancel a sweep's jobs, and say which. SIGTERM reaches its workers, which save and leave.

    Raises
    ------
    RequestError
        If the queue does not answer, or refuses.
    """
    needs("scancel")
    ids = sorted({job.array for job in jobs(folder)}, key=int)
    if ids and (done := _ask("scancel", *ids)).returncode:
        raise RequestError(f"launch=slurm: scancel refuses: {_one_line(done.stderr)}")
    return ids


def begin(name: str) -> None:
    """First words of a task's log."""
    life = int(os.environ.get("SLURM_RESTART_COUNT") or 0) + 1
    print(f"worker of {name}: {_task()} on {socket.gethostname()}, life {life}, {sys.executable}", flush=True)


def leave(code: int, why: str, requeue: bool) -> int:
    """Exit code of a task whose worker ended with `code`: 0 unless the worker itself is broken.

    A worker that left work because of SLURM's warning (`why` is SIGUSR1) is requeued where that is allowed. SIGTERM
    asks for nothing: SLURM sends it when it cancels or requeues a job by itself.
    """
    if code == 130 and why == "SIGUSR1" and requeue:
        done = _ask("scontrol", "requeue", _task())
        if done.returncode:
            print(f"not requeued: {_one_line(done.stderr)}; `proxytrain submit` goes on", flush=True)
        else:
            print(f"{_task()} is requeued and goes on", flush=True)
    elif code == 0:
        print("no work is left", flush=True)
    return 0 if code in (0, 1, 130) else code


def needs(program: str) -> None:
    """Raises RequestError where a command of SLURM is not on the PATH."""
    if shutil.which(program) is None:
        raise RequestError(
            f"launch=slurm: no {program} on the PATH; run this where SLURM's commands are, such as the cluster's login "
            "node, or train on this machine with `proxytrain sweep` and launch=local"
        )


def _task() -> str:
    """The array task that this process is, as JOB_TASK, the way in which it can be requeued."""
    array, number = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{number}" if array else os.environ.get("SLURM_JOB_ID", "no job")


def _keep(path: Path, text: str) -> None:
    """Write a script; one that differs from it, edited by its user perhaps, is kept beside it.

    Raises
    ------
    RequestError
        If links stand there, which could lead out of the store.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if links := [p for p in (path.parent, *path.parent.iterdir()) if p.is_symlink()]:
        raise RequestError(f"{links[0]}: a link, where scripts and logs are written; remove it")
    if path.exists() and path.read_text(encoding="utf-8") != text:
        path.replace(path.with_name(f"{path.name}~"))
    write_text(path, text)
    path.chmod(0o755)


def _sbatch(launch: Slurm, path: Path, *options: str) -> str:
    """Submit a script; the job's id."""
    done = _ask("sbatch", "--parsable", *options, str(path))
    if done.returncode:
        text = _one_line(done.stderr)
        key = next((key for word, key in BLAME.items() if word in text.lower()), None)
        asked = f"launch.{key}={getattr(launch, key)}" if key else "launch=slurm"
        allowed = f"; partitions are {', '.join(_partitions())}" if key == "partition" else ""
        raise RequestError(f"{asked}: sbatch refuses: {text}{allowed}")
    return done.stdout.strip().partition(";")[0]


def _partitions() -> list[str]:
    return sorted(set(_ask("sinfo", "--noheader", "--format=%R").stdout.split()))


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    """A command of SLURM, within two minutes."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=120
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"no {command[0]} on the PATH")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"{command[0]} is silent")


def _one_line(text: str) -> str:
    """What a command of SLURM said, without its own name before every line."""
    said = [re.sub(r"^\w+: (error: |fatal: )?", "", line).strip() for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in said if line)) or "no reason given"
