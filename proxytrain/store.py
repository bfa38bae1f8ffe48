"""The store: one folder in which segments, runs and sweeps live, for all sweeps. Files are whole or absent.

    segments/LINEAGE/END/   segment.json  curve.npz  state.npy (3, P): weights and moments, where training can go on
    runs/RUN_ID/            config.yaml  result.json
    sweeps/NAME/            plan.json  fit.json  predictions.csv  report.html  packs/...
    corpora/                see `proxytrain.corpus`

A folder is published by renaming it into place: of two that try, the first wins and the other is thrown away, so a
worker that comes late cannot spoil anything. Nothing here is ever unpickled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from proxytrain import process
from proxytrain.errors import RequestError

Key = tuple[str, int]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ID = re.compile(r"[A-Za-z0-9]+")
FORGOTTEN_SECONDS = 86400.0


@dataclass(frozen=True)
class RunCurve:
    """The whole curve of a run, trunk included: one row an update, and evaluations on the small slice."""

    step: np.ndarray  # (n,) updates made before the row's batch was read
    tokens: np.ndarray  # (n,) tokens read after the row's update
    lr: np.ndarray  # (n,)
    loss: np.ndarray  # (n,) training loss of the row's batch before its update, nats a token
    grad_norm: np.ndarray  # (n,) before clipping
    eval_tokens: np.ndarray  # (m,)
    eval_loss: np.ndarray  # (m,)


class Store:
    """Paths and whole files below one root."""

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(root)

    def corpora(self) -> Path:
        return self.root / "corpora"

    def sweep(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise RequestError(f"sweep.name={name}: letters, digits, '.', '_' and '-' only")
        return self.root / "sweeps" / name

    def sweeps(self) -> list[str]:
        folder = self.root / "sweeps"
        return sorted(p.parent.name for p in folder.glob("*/plan.json")) if folder.is_dir() else []

    def segment(self, key: Key) -> Path:
        return self.root / "segments" / _id(key[0]) / str(int(key[1]))

    def run(self, run_id: str) -> Path:
        return self.root / "runs" / _id(run_id)

    def stored(self, lineage: str) -> dict[int, bool]:
        """Positions published on a lineage, and whether training can go on from there (its state is kept)."""
        folder = self.root / "segments" / lineage
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return {}
        whole = [n for n in names if n.isdigit() and (folder / n / "segment.json").exists()]
        return {int(n): (folder / n / "state.npy").exists() for n in whole}

    def published(self, key: Key) -> bool:
        """Whether a segment is here."""
        return (self.segment(key) / "segment.json").exists()

    def has_state(self, key: Key) -> bool:
        """Whether training can go on from the end of a segment."""
        return (self.segment(key) / "state.npy").exists()

    def has_result(self, run_id: str) -> bool:
        """Whether a run is done or diverged."""
        return (self.run(run_id) / "result.json").exists()

    def result(self, run_id: str) -> dict[str, Any] | None:
        """`result.json` of a run; None while there is none."""
        return read_json(self.run(run_id) / "result.json")

    def segment_status(self, key: Key) -> str | None:
        """done or diverged; None while a segment is not published."""
        meta = read_json(self.segment(key) / "segment.json")
        return meta["status"] if meta else None

    def curve(self, run_id: str) -> RunCurve:
        """The curve of a finished run, from its first token: its segment and all before it.

        Raises
        ------
        RequestError
            If the run, or a segment before it, is not in the store.
        """
        result = self.result(run_id)
        if result is None:
            raise RequestError(f"{run_id}: no such run in {self.root}")
        return self.curve_to((result["lineage"], result["end"]), result["recipe"]["batch_tokens"])

    def curve_to(self, key: Key | None, batch_tokens: int) -> RunCurve:
        pieces = []
        while key is not None:
            meta = read_json(self.segment(key) / "segment.json")
            if meta is None:
                raise RequestError(f"{self.segment(key)}: the segment is missing; run the sweep again")
            with np.load(self.segment(key) / "curve.npz", allow_pickle=False) as file:
                pieces.append({name: file[name] for name in file.files})
            key = tuple(meta["parent"]) if meta["parent"] else None
        joined = {name: np.concatenate([p[name] for p in reversed(pieces)]) for name in pieces[0]}
        return RunCurve(step=joined["tokens"] // batch_tokens - 1, **joined)


@contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well; the first to come wins.

    A later one adds only files that the first lacks (a state that was thrown away).
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
            for file in fresh.iterdir():
                with suppress(FileExistsError):
                    os.link(file, target / file.name)
        sync(target.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole: under a temporary name, synced, then renamed over `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = temporary(path)
    try:
        with open(fresh, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def temporary(path: Path) -> Path:
    """A name beside `path` that no other process uses, and that says whose it is."""
    return path.with_name(f".{path.name}.{process.name()}.{uuid.uuid4().hex[:12]}.tmp")


def left_behind(folder: Path) -> list[Path]:
    """Temporary files in a folder whose writers are dead, or are of another machine and silent for a day."""
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


def write_state(path: Path, state: np.ndarray) -> None:
    """Write weights and moments (3, P), float32, as `.npy` with the CRC-32 of the data behind them."""
    data = np.ascontiguousarray(state, "<f4")
    with open(path, "xb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(data))
        file.write(data.data)
        file.write(zlib.crc32(data.data).to_bytes(4, "little"))


def read_state(path: Path) -> np.ndarray:
    """What `write_state` wrote.

    Raises
    ------
    ValueError
        If the file is not whole.
    FileNotFoundError
        If there is none.
    """
    try:
        state = np.load(path, mmap_mode="r", allow_pickle=False)
        if state.dtype != np.float32 or state.ndim != 2 or len(state) != 3:
            raise ValueError("another shape")
        with open(path, "rb") as file:
            file.seek(state.offset + state.nbytes)
            checksum = file.read()
    except FileNotFoundError:
        raise
    except Exception as error:  # a file that somebody else may have written: whatever is wrong with it
        raise ValueError(f"not a whole state ({error})") from None
    if checksum and zlib.crc32(state.data) != int.from_bytes(checksum, "little"):
        raise ValueError("not a whole state (its checksum differs)")
    return state


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where there is no file.

    Raises
    ------
    RequestError
        If the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: broken JSON ({error}); delete it and run again") from None


def _id(text: str) -> str:
    """A name from a plan or a result, which must not lead out of the store."""
    if not ID.fullmatch(text):
        raise RequestError(f"{text!r}: no id of a run or a segment")
    return text


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, outlast a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
