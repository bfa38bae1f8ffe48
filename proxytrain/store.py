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
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from proxytrain.errors import RequestError

Key = tuple[str, int]


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
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise RequestError(f"sweep.name={name}: letters, digits, '.', '_' and '-' only")
        return self.root / "sweeps" / name

    def sweeps(self) -> list[str]:
        folder = self.root / "sweeps"
        return sorted(p.parent.name for p in folder.glob("*/plan.json")) if folder.is_dir() else []

    def segment(self, key: Key) -> Path:
        return self.root / "segments" / key[0] / str(key[1])

    def run(self, run_id: str) -> Path:
        return self.root / "runs" / run_id

    def stored(self, lineage: str) -> dict[int, bool]:
        """Positions published on a lineage, and whether training can go on from there (its state is kept)."""
        folder = self.root / "segments" / lineage
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return {}
        whole = [n for n in names if n.isdigit() and (folder / n / "segment.json").exists()]
        return {int(n): (folder / n / "state.npy").exists() for n in whole}

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

    A later one adds only files that the first lacks (a state that was thrown away). What publishers that died on this
    machine left behind is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*.tmp"):
        if _left_behind(left.name.split(".")[-3]):
            shutil.rmtree(left, ignore_errors=True)
    temporary = target.parent / f".{target.name}.{socket.gethostname()}-{os.getpid()}.{uuid.uuid4().hex}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.is_dir():
                raise
            for file in temporary.iterdir():
                with suppress(FileExistsError):
                    os.link(file, target / file.name)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole: under a temporary name, synced, then renamed over `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def _left_behind(owner: str) -> bool:
    """Whether HOST-PID names a process of this machine that is gone."""
    host, _, pid = owner.rpartition("-")
    return host == socket.gethostname() and pid.isdigit() and not Path(f"/proc/{pid}").exists()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
