"""Names of processes, by which others tell whether the writer of a claim or a temporary file is still alive.

A process id means something on one machine, in one pid namespace, until the next boot; so a name has all of these, and
of a process of elsewhere nothing is known.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from pathlib import Path
from typing import Literal

State = Literal["alive", "stopped", "dead", "unknown"]


def name() -> str:
    """MACHINE-PID-STARTED of this process; letters, digits and '-' only."""
    pid = os.getpid()
    return f"{_machine()}-{pid}-{(_stat(pid) or ('R', 0))[1]}"


def state(owner: str) -> State:
    """What has become of the process of that name; "unknown" if it is of another machine, or no name."""
    machine, _, rest = owner.partition("-")
    pid, _, started = rest.partition("-")
    if machine != _machine() or not (pid.isdecimal() and started.isdecimal()):
        return "unknown"
    found = _stat(int(pid))
    if found is None or found[1] != int(started):
        return "dead"
    return "stopped" if found[0] in "Tt" else "alive"


def say(text: str) -> None:
    """A line for the log; the work goes on where it cannot be written: a full disk, a pipe that nobody reads."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter of a process and when it began, in ticks since boot; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (fields[0], int(fields[19]))


@functools.cache
def _machine() -> str:
    """This boot and pid namespace, as 8 hex digits."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        return "nowhere0"  # no /proc: nothing is known of any process
    return hashlib.sha256(f"{boot}{space}".encode()).hexdigest()[:8]
