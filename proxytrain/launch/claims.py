"""Claims on packs: which worker trains what, by files that many machines can share.

A claim is a complete file linked into place, so it is whole or absent and the first wins. Its modification time is the
worker's heartbeat, compared with times of the same file system. A claim is taken over when its worker is known to be
dead (same machine), or has been silent for `STALE_SECONDS` and may be. A worker that wakes up after that does no harm:
it writes into its own attempt's folder only, published folders are never replaced, and it releases only its own claim.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


@dataclass(frozen=True)
class Claim:
    """A pack that this process may train."""

    path: Path
    token: str
    attempt: Path  # folder of its own

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps the claim alive, from a thread, until the block ends; then releases it."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_SECONDS):
                if self._ours():
                    with contextlib.suppress(OSError):
                        os.utime(self.path)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.release()

    def release(self) -> None:
        """Give the pack back, unless another worker has taken it over."""
        if self._ours():
            self.path.unlink(missing_ok=True)

    def _ours(self) -> bool:
        return (_read(self.path) or {}).get("token") == self.token


def take(pack: Path) -> Claim | None:
    """Claim the pack with this folder; None when another worker holds it."""
    pack.mkdir(parents=True, exist_ok=True)
    path = pack / "claim"
    if path.exists() and not _bury(path):
        return None
    token = uuid.uuid4().hex
    ours = pack / f".claim.{token}.tmp"
    who = {"host": socket.gethostname(), "pid": os.getpid(), "started": _process(os.getpid())[1], "token": token}
    with open(ours, "w", encoding="utf-8") as file:
        json.dump(who, file)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(ours, path)
    won = os.stat(ours).st_nlink == 2  # on NFS the return code of link may lie
    ours.unlink()
    if not won:
        return None
    attempt = pack / f"attempt-{len(list(pack.glob('attempt-*'))) + 1:03d}-{token[:8]}"
    attempt.mkdir()
    return Claim(path, token, attempt)


def holder(pack: Path) -> dict[str, Any] | None:
    """Who holds a pack (host, pid); None when nobody alive does."""
    path = pack / "claim"
    return None if _abandoned(path) else _read(path)


def _bury(path: Path) -> bool:
    """Move an abandoned claim out of the way; false when it is not, or another did."""
    if not _abandoned(path):
        return False
    seen = _read(path)
    grave = path.with_name(f".claim.{uuid.uuid4().hex}.tmp")
    try:
        os.rename(path, grave)  # of several that see it, one succeeds
    except FileNotFoundError:
        return False
    if _read(grave) != seen:  # another was faster, and this is its fresh claim
        with contextlib.suppress(FileExistsError):
            os.link(grave, path)
        grave.unlink()
        return False
    grave.unlink()
    return True


def _abandoned(path: Path) -> bool:
    """Whether the worker that holds a claim is dead, or silent for long and not known to be alive."""
    who = _read(path)
    if who is not None and who.get("host") == socket.gethostname():
        state, started = _process(who.get("pid", 0))
        if state is None or started != who.get("started"):
            return True
        if state != "T":  # alive, and not stopped
            return False
    try:
        return abs(_now(path.parent) - path.stat().st_mtime) > STALE_SECONDS  # a clock may have been set back
    except FileNotFoundError:
        return False


def _read(path: Path) -> dict[str, Any] | None:
    """The content of a claim; None where there is none, or none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _process(pid: int) -> tuple[str | None, str | None]:
    """State letter of a process of this machine and when it began, in ticks since boot; Nones if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None, None
    return (None, None) if fields[0] in "ZX" else (fields[0], fields[19])


def _now(folder: Path) -> float:
    """The time by the file system's clock; by this machine's where nothing may be written."""
    probe = folder / f".now.{uuid.uuid4().hex}.tmp"
    try:
        probe.touch()
    except OSError:
        return time.time()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()
