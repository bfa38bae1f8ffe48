"""The folder of prepared corpora: whole or not there, whatever is killed and however many prepare at once.

<root>/<content hash>/            one corpus, published by a rename
<root>/requests/<request>.json    which corpus a request led to
<root>/requests/<request>.lock    held by the process that prepares it; the kernel lets go of it when that dies
<root>/tmp/<request>-<random>/    under construction; when its owner is dead, whoever prepares next removes it
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # what file systems without flock answer


@contextmanager
def locked(root: Path, request: str, wait: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock of a request; `wait` is called first if another process has it.

    Yields False where the file system knows no locks: then two may build the same, and the first publishes it.
    """
    (root / "requests").mkdir(parents=True, exist_ok=True)
    with open(root / "requests" / f"{request}.lock", "w") as lock:
        try:
            if not _try_lock(lock):
                wait()
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            yield False
        else:
            yield True


@contextmanager
def workshop(root: Path, request: str, sweep: bool) -> Iterator[Path]:
    """An empty folder to build in, removed in the end. `sweep`, with the lock held: remove those of the dead now."""
    tmp = root / "tmp"
    tmp.mkdir(exist_ok=True)
    for left in tmp.iterdir() if sweep else ():
        other = left.name.rpartition("-")[0]
        with open(root / "requests" / f"{other}.lock", "w") as lock:
            if other == request or _try_lock(lock):
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{request}-", dir=tmp))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(built: Path, target: Path) -> None:
    """Move a finished folder to its place at once. One of the same content that is there already gets its manifest."""
    for path in built.iterdir():
        _sync(path)
    _sync(built)
    try:
        built.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        os.replace(built / "manifest.json", target / "manifest.json")
    _sync(target.parent)


def remember(root: Path, request: str, content_hash: str) -> None:
    """Write down which corpus a request led to."""
    path = root / "requests" / f"{request}.json"
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps({"content_hash": content_hash}) + "\n")
    _sync(fresh)
    fresh.replace(path)
    _sync(path.parent)


def recall(root: Path, request: str) -> str | None:
    """The content hash that a request led to, if that corpus is there."""
    try:
        content_hash = json.loads((root / "requests" / f"{request}.json").read_text())["content_hash"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # none, or broken: prepared again
        return None
    return content_hash if (root / content_hash / "manifest.json").is_file() else None


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
