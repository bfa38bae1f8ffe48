"""Where what is compiled on this machine lies. It is for one kind of processor, and is run: it lies with this user's
files, never in a store.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def folder() -> Path:
    """This user's, for this kind of processor; one for this process alone where it cannot be written to."""
    return _folder(Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()))


def compiler() -> str:
    """The C++ compiler's name."""
    return os.environ.get("CXX") or "g++"


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """While this process makes `path`, others that want to make it wait; where there are no locks, they do not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def _folder(home: Path) -> Path:
    text = "\n".join(sorted(set(Path("/proc/cpuinfo").read_text().splitlines())))
    flags = [line for line in text.splitlines() if line.startswith(("flags", "model name", "Features"))]
    kind = hashlib.blake2b("\n".join([platform.machine(), *flags]).encode(), digest_size=6).hexdigest()
    folder = home / "proxytrain" / f"compiled-{kind}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="proxytrain-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
