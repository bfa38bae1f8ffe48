"""Claims on packs: which worker trains what, by files that many machines can share.

A claim is a complete file linked into place, so it is whole or absent and the first wins. Its modification time is the
worker's heartbeat, compared with times of the same file system. A claim is taken over at once when its worker is known
to be dead (a process of this machine; an earlier life of the same SLURM task), and otherwise when it has been silent
for `stale_seconds`. A worker that wakes up after that does no harm: it writes into its own attempt's folder only,
published folders are never replaced, it releases only its own claim, and it leaves the pack as soon as it notices.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from proxytrain import process
from proxytrain.errors import RequestError
from proxytrain.files.atomic import temporary
from proxytrain.files.documents import Document, encode_document, read_document

BEATS = 12  # in the time after which a worker counts as dead
STALE_SECONDS = 60.0


class Holder(Document, frozen=True, kw_only=True):
    """The worker that holds a claim: the claim's content."""

    owner: str = ""  # its name, by which `process.state` knows whether it is alive
    host: str = ""
    pid: int = 0
    token: str = ""
    job: str | None = None  # its task under SLURM
    restart: int = 0  # how often that was requeued


@dataclass(frozen=True)
class Claim:
    """A pack that this process may train."""

    path: Path
    token: str
    attempt: Path  # folder of its own
    lost: threading.Event = field(default_factory=threading.Event)  # set once another worker has taken it over

    @contextlib.contextmanager
    def held(self, stale_seconds: float = STALE_SECONDS) -> Iterator[None]:
        """Keeps the claim alive, from a thread, until the block ends; then releases it."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(stale_seconds / BEATS) and not self.lost.is_set():
                self.beat()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.release()

    def beat(self) -> None:
        """One heartbeat; notices when the claim is another's by now."""
        with contextlib.suppress(OSError):  # a file system that is away for a moment
            if self.ours():
                os.utime(self.path)
            else:
                self.lost.set()

    def release(self) -> None:
        """Give the pack back, unless another worker has taken it over."""
        with contextlib.suppress(OSError):
            if self.ours():
                self.path.unlink()

    def ours(self) -> bool:
        """Whether the pack is still this worker's.

        Raises
        ------
        OSError
            If that cannot be told now.
        """
        try:
            content = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        return self.token in content


def take(pack: Path, stale_seconds: float = STALE_SECONDS) -> Claim | None:
    """Claim the pack with this folder; None when another worker holds it."""
    pack.mkdir(parents=True, exist_ok=True)
    path = pack / "claim"
    if os.path.lexists(path) and not _bury(path, stale_seconds):
        return None
    token = uuid.uuid4().hex
    ours = temporary(path)
    try:
        with open(ours, "xb") as file:
            file.write(encode_document(_holder(token)))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(ours, path)
        if os.stat(ours).st_nlink != 2:  # on NFS the return code of link may lie
            return None
    finally:
        ours.unlink(missing_ok=True)
    attempt = pack / f"attempt-{attempts(pack) + 1:03d}-{token[:8]}"
    try:
        attempt.mkdir()
    except OSError:
        path.unlink()
        raise
    return Claim(path, token, attempt)


def attempts(pack: Path) -> int:
    """How often a pack was begun."""
    return max((int(p.name.split("-")[1]) for p in pack.glob("attempt-[0-9]*")), default=0)


def holder(pack: Path, stale_seconds: float = STALE_SECONDS) -> Holder | None:
    """Return who holds a pack; None when nobody alive does."""
    path = pack / "claim"
    return None if not os.path.lexists(path) or _abandoned(path, stale_seconds) else _read(path)


def _holder(token: str = "") -> Holder:
    """Return this worker: for people, and for those who want to know whether it is alive."""
    job, array = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_JOB_ID")
    return Holder(
        owner=process.name(),
        host=socket.gethostname(),
        pid=os.getpid(),
        token=token,
        job=f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else job,
        restart=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    )


def _bury(path: Path, stale_seconds: float) -> bool:
    """Move an abandoned claim out of the way; false when it is not, or another did."""
    if not _abandoned(path, stale_seconds):
        return False
    seen = _read(path)
    grave = temporary(path)
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


def _abandoned(path: Path, stale_seconds: float) -> bool:
    """Whether the worker that holds a claim is dead, or silent for long and not known to be alive."""
    who, here = _read(path), _holder()
    state = process.state(who.owner if who else "")
    earlier = who and here.job and who.job == here.job and who.restart < here.restart
    if state == "dead" or earlier:
        return True
    if state == "alive":
        return False
    try:
        return abs(_now(path.parent) - path.lstat().st_mtime) > stale_seconds  # a clock may have been set back
    except FileNotFoundError:
        return False


def _read(path: Path) -> Holder | None:
    """Return the content of a claim; None where there is none, or none that can be read."""
    with contextlib.suppress(OSError, RequestError):
        return read_document(path, Holder, "it is taken over")
    return None


def _now(folder: Path) -> float:
    """The time by the file system's clock, from a file without a name where it can make those.

    By our own clock where nothing can be written: a store is watched from elsewhere.
    """
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY)
        try:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
    except OSError:
        probe = temporary(folder / "now")
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
