"""SLURM's batch scripts of a sweep: text from the configuration, whole by itself. Nothing is submitted here.

What comes from the configuration is quoted for the shell and for SLURM's own reader of #SBATCH lines, or refused;
`launch.setup` is shell text of the user's own by intent.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

from proxytrain.config.overrides import quoted
from proxytrain.config.schema import Slurm
from proxytrain.errors import RequestError

OURS = {  # options of sbatch that have a key of their own, or that the workers rely on
    "array": "launch.workers and launch.max_parallel",
    "partition": "launch.partition",
    "time": "launch.time",
    "gpus": "launch.gpus",
    "gres": "launch.gpus",
    "cpus-per-task": "launch.threads",
    "requeue": "launch.requeue",
    "no-requeue": "launch.requeue",
    "signal": "launch.warn_seconds",
    **dict.fromkeys(
        ("job-name", "comment", "chdir", "dependency", "wrap", "parsable", "nodes", "ntasks"), "proxytrain"
    ),
}
# The Python of an environment that launch.setup activates starts the worker, or else the one that wrote the script.
CHOICE = """
# the lines of launch.setup may activate another environment; its Python then runs the worker
environment() {{ echo "$VIRTUAL_ENV:$CONDA_PREFIX:$(type -P proxytrain)"; }}
python_now() {{ if [ "$(environment)" = "$before" ]; then echo {ours}; else type -P python || type -P python3; fi; }}
before=$(environment)"""
Options = dict[str, str | int | float | bool | None]


def check(launch: Slurm) -> None:
    """What can be seen to be wrong before anything is written.

    Raises
    ------
    RequestError
        For a time that SLURM does not read, GPUs that a worker cannot use, options that have a key of their own, and
        text that would break out of its line of the script.
    """
    if launch.time is not None:
        seconds(launch.time)
    if launch.gpus is not None and not re.fullmatch(r"([A-Za-z][\w.-]*:)?1", launch.gpus):
        raise RequestError(
            f"launch.gpus={launch.gpus}: a worker trains on one GPU: 1, TYPE:1 (a100:1) or null; "
            "launch.workers says how many workers"
        )
    for key, value in launch.sbatch_args.items():
        option = _option(key)
        if not re.fullmatch(r"[a-z][a-z0-9-]+", option):
            raise RequestError(f"launch.sbatch_args.{key}: a long option of sbatch without its dashes is needed")
        if option in OURS:
            raise RequestError(f"launch.sbatch_args.{key}: is set by {OURS[option]}")
        if not isinstance(value, str | int | float):
            raise RequestError(f"launch.sbatch_args.{key}={value}: a text, a number, true or false is needed")


def seconds(time: str) -> int:
    """A time limit in seconds, by the forms that sbatch reads: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S.

    >>> seconds("90"), seconds("4:00:00"), seconds("1-12")
    (5400, 14400, 129600)

    Raises
    ------
    RequestError
        If it has none of them, or is 0.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if not match:
        raise RequestError(
            f"launch.time={time}: allowed are minutes (90), hours:minutes:seconds (4:00:00), days-hours (1-12), "
            "days-hours:minutes:seconds, or null for the partition's default"
        )
    days, a, b, c = (int(part or 0) for part in match.groups())
    limit = ((24 * days + a) * 60 + b) * 60 + c if match[1] or match[4] else 60 * a + b
    if not limit:
        raise RequestError(f"launch.time={time}: must be above 0; null is the partition's default")
    return limit


def scripts(
    launch: Slurm, folder: Path, device: str, tracking: list[str], overrides: list[str], config_dir: str | None
) -> dict[str, str]:
    """`work`: an array whose tasks are workers of a sweep; `finish`: the job that concludes it, where that is asked.

    Parameters
    ----------
    folder : of the sweep, absolute
    device : on which its workers train
    tracking : overrides that have them mirrored
    overrides, config_dir : of the request, which the last job reads again
    """
    made = {"work": _work(launch, folder, device, tracking)}
    if launch.finish:
        made["finish"] = _finish(launch, folder, overrides, config_dir)
    return made


def _work(launch: Slurm, folder: Path, device: str, tracking: list[str]) -> str:
    warning = launch.warn_seconds if launch.time is None else min(launch.warn_seconds, seconds(launch.time) // 2)
    options: Options = {
        "array": f"0-{launch.workers - 1}" + (f"%{launch.max_parallel}" if launch.max_parallel else ""),
        "requeue" if launch.requeue else "no-requeue": True,
        "signal": f"B:USR1@{warning}",
    }
    lines = [
        f"# Workers of the sweep {folder.name}: each takes packs of runs from its plan until none is left.",
        "# Yours to keep and to edit: `sbatch` on this file adds workers, not work. `proxytrain submit` writes it anew",
        "# and keeps the one that it replaces as work.sh~.",
        *_head(launch, folder, folder.name, "%A_%a", options),
        "",
        "# SLURM's warning (USR1) must not end the job before the worker listens to it",
        "trap '' USR1",
        f"export OMP_NUM_THREADS={launch.threads} MKL_NUM_THREADS={launch.threads}",
    ]
    store = str(folder.parents[1])
    store = store if re.fullmatch(r"[A-Za-z0-9_./-]+", store) else quoted(store)
    command = ["work", f"sweep.name={folder.name}", f"store={store}", f"train.device={device}"]
    command += ["launch=slurm", f"launch.threads={launch.threads}", f"launch.requeue={str(launch.requeue).lower()}"]
    command.append(f"launch.stale_seconds={launch.stale_seconds:g}")
    return _script(launch, lines, [*command, *tracking])


def _finish(launch: Slurm, folder: Path, overrides: list[str], config_dir: str | None) -> str:
    lines = [
        f"# Fits the sweep {folder.name}, predicts its target and writes its page: submitted to run after the workers.",
        *_head(launch, folder, f"{folder.name}.finish", "%j", {}),
        "",
    ]
    search = ["--config-dir", str(Path(config_dir).resolve())] if config_dir else []
    return _script(launch, lines, ["report", *search, *overrides])


def _script(launch: Slurm, lines: list[str], command: list[str]) -> str:
    """Return lines, the user's setup, and proxytrain with every argument quoted.

    It starts with the Python that writes the script, or with that of another environment which the setup activates.
    """
    ours, setup = shlex.quote(sys.executable), launch.setup.strip()
    choice, python = ([], ours) if not setup else ([*CHOICE.format(ours=ours).splitlines(), setup], '"$(python_now)"')
    start = f"exec {python} -m proxytrain {shlex.join(command)}"
    return "\n".join(["#!/bin/bash", *lines, *choice, start]) + "\n"


def _head(launch: Slurm, folder: Path, name: str, log: str, more: Options) -> list[str]:
    """The #SBATCH lines, in which quotes are read as in a shell; a backslash has no way to stand there."""
    options: Options = {
        "job-name": name,
        "comment": str(folder),
        "chdir": os.getcwd(),
        "output": f"{str(folder).replace('%', '%%')}/slurm/{log}.log",
        "open-mode": "append",
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": launch.threads,
        "partition": launch.partition,
        "time": launch.time,
        "gres": launch.gpus and f"gpu:{launch.gpus}",
        **more,
        **{_option(key): value for key, value in launch.sbatch_args.items()},
    }
    lines = []
    for key, value in options.items():
        if "\\" in str(value) or not str(value).isprintable():
            raise RequestError(f"--{key}={value!r}: a backslash or a control character cannot stand in SLURM's scripts")
        if value is not None and value is not False:
            lines.append(f"#SBATCH --{key}" + ("" if value is True else f"={shlex.quote(str(value))}"))
    return lines


def _option(key: str) -> str:
    return str(key).replace("_", "-")
