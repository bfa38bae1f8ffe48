"""Claims on packs: which worker trains what, by files that many machines can share.

A claim is a complete file linked into place, so it is whole or absent and the first wins. Its modification time is the
worker's heartbeat, compared with times of the same file system. A claim is taken over when its worker is known to be
dead (same machine) or has been silent for `STALE_SECONDS`; a worker that wakes up after that does no harm, since it
writes into its own attempt's folder only and published folders are never replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

STALE_SECONDS = 60.0


@dataclass(frozen=True)
class Claim:
    """A pack that this process may train."""

    path: Path
    attempt: Path  # folder of its own

    def beat(self) -> None:
        os.utime(self.path)

    def release(self) -> None:
        self.path.unlink(missing_ok=True)


def take(pack: Path) -> Claim | None:
    """Claim the pack with this folder; None when another worker holds it."""
    pack.mkdir(parents=True, exist_ok=True)
    path = pack / "claim"
    if path.exists() and not _abandoned(path):
        return None
    if path.exists():
        grave = pack / f".claim.{uuid.uuid4().hex}.tmp"
        try:
            os.rename(path, grave)  # of several that see it, one succeeds
        except FileNotFoundError:
            return None
        grave.unlink()
    ours = pack / f".claim.{uuid.uuid4().hex}.tmp"
    ours.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}))
    with contextlib.suppress(FileExistsError):
        os.link(ours, path)
    won = os.stat(ours).st_nlink == 2  # on NFS the return code of link may lie
    ours.unlink()
    if not won:
        return None
    number = 1 + max((int(p.name.rpartition("-")[2]) for p in pack.glob("attempt-*")), default=0)
    attempt = pack / f"attempt-{number:03d}"
    attempt.mkdir()
    return Claim(path, attempt)


def holder(pack: Path) -> dict | None:
    """Who holds a pack (host, pid); None when nobody alive does."""
    path = pack / "claim"
    try:
        return None if _abandoned(path) else json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _abandoned(path: Path) -> bool:
    try:
        who = json.loads(path.read_text())
        if who["host"] == socket.gethostname() and _started(who["pid"]) != who["started"]:
            return True
        return _now(path.parent) - path.stat().st_mtime > STALE_SECONDS
    except FileNotFoundError:
        return False


def _started(pid: int) -> str | None:
    """When a process of this machine began, in ticks since boot; None if there is none (or only its zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def _now(folder: Path) -> float:
    """The time by the file system's clock."""
    probe = folder / f".now.{uuid.uuid4().hex}.tmp"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()
