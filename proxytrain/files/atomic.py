"""Files and folders that are whole or absent, and what writers that died left behind.

A folder is published by renaming it into place: of two that try, the first wins and the other is thrown away, so a
worker that comes late cannot spoil anything. Nothing that is read here is unpickled.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from proxytrain import process
from proxytrain.arrays import Array

FORGOTTEN_SECONDS = 86400.0


@contextmanager
def publishing(target: Path, record: str) -> Iterator[Path]:
    """Yield a temporary folder beside `target` that takes its place when the block ends well; the first to come wins.

    A later one adds only files that the first lacks (a state that was thrown away). Where `record`, the file that says
    what the others are, is lost, they may be of another segment: the later one takes the place of all.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = temporary(target)
    fresh.mkdir()
    try:
        yield fresh
        for file in fresh.iterdir():
            sync(file)
        sync(fresh)
        try:
            os.rename(fresh, target)
        except OSError:
            if not target.is_dir():
                raise
            if (target / record).exists():
                for file in fresh.iterdir():
                    with suppress(FileExistsError):
                        os.link(file, target / file.name)
            else:  # folders come whole, so this one was damaged later
                os.rename(target, damaged := temporary(target))
                os.rename(fresh, target)
                remove(damaged)
        sync(target.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole: under a temporary name, synced, then renamed over `path`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of bytes whole, as `write_text`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = temporary(path)
    try:
        with open(fresh, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def open_log(path: Path) -> BinaryIO:
    """Open a file to append to, never through a link, which could lead anywhere."""
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o644))


def temporary(path: Path) -> Path:
    """Return a name beside `path` that no other process uses, and that says whose it is."""
    return path.with_name(f".{path.name}.{process.name()}.{uuid.uuid4().hex[:12]}.tmp")


def left_behind(folder: Path) -> list[Path]:
    """Return temporary files in a folder whose writers are dead, or are of another machine and silent for a day."""
    try:
        found = [p for p in folder.iterdir() if p.name.startswith(".") and p.name.endswith(".tmp")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    gone = []
    for path in found:
        state = process.state(path.name.split(".")[-3] if path.name.count(".") > 3 else "")
        with suppress(FileNotFoundError):
            if state == "dead" or (state == "unknown" and time.time() - path.lstat().st_mtime > FORGOTTEN_SECONDS):
                gone.append(path)
    return gone


def clear(folder: Path) -> None:
    """Remove what dead writers left in a folder."""
    for path in left_behind(folder):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all in it; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_state(path: Path, state: Array) -> None:
    """Write weights and moments (3, P), float32, as `.npy` with the CRC-32 of the data behind them."""
    data = np.ascontiguousarray(state, "<f4")
    with open(path, "xb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(data))
        file.write(data.data)
        file.write(zlib.crc32(data.data).to_bytes(4, "little"))


def read_state(path: Path) -> Array:
    """Read what `write_state` wrote.

    Raises
    ------
    ValueError
        If the file is not whole.
    FileNotFoundError
        If there is none.
    """
    try:
        with open(path, "rb") as file:
            state = np.load(file, allow_pickle=False)
            checksum = file.read()
        if state.dtype != np.float32 or state.ndim != 2 or len(state) != 3:
            raise ValueError("another shape")
    except FileNotFoundError:
        raise
    except Exception as error:  # a file that somebody else may have written: whatever is wrong with it
        raise ValueError(f"not a whole state ({error})") from None
    if checksum and zlib.crc32(state.data) != int.from_bytes(checksum, "little"):
        raise ValueError("not a whole state (its checksum differs)")
    return state


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, outlast a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
