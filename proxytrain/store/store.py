"""The store: one folder in which segments, runs and sweeps live, for all sweeps. Files are whole or absent.

    segments/LINEAGE/END/   segment.json  curve.npz  state.npy (3, P): weights and moments, where training can go on
    runs/RUN_ID/            config.yaml  result.json  weights.safetensors
    sweeps/NAME/            plan.json  fit.json  curves.json  predictions.csv  report.html  packs/...
    corpora/                see `proxytrain.corpus`
    store.json              the format of all this

A folder is published by renaming it into place: of two that try, the first wins and the other is thrown away, so a
worker that comes late cannot spoil anything. What lies here may come from anybody: it is data, never unpickled; names
cannot lead out of the store, and nothing is written through links that do (`corpora` may be a link of yours).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from proxytrain import process
from proxytrain.errors import RequestError

Key = tuple[str, int]  # of a segment: lineage, end
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ID = re.compile(r"[A-Za-z0-9]+")
FORGOTTEN_SECONDS = 86400.0
FORMAT = 1
CURVE = ("tokens", "lr", "loss", "grad_norm", "eval_tokens", "eval_loss")
NUMBER: Any = (int, float)
MAYBE: Any = (int, float, type(None))
PARAMS = dict.fromkeys(("embedding", "attention", "mlp", "norm", "readout"), int)
SEGMENT = {"parent": (list, type(None)), "status": str, "end": int, "seconds": NUMBER, "path_seconds": NUMBER}
RESULT = {
    "id": str,
    "status": str,
    "final_loss": MAYBE,
    "val_se": MAYBE,
    "bits_per_byte": MAYBE,
    "tokens": int,
    "lineage": str,
    "end": int,
    "recipe_id": str,
    "recipe": {"model": {"width": int, "depth": int}, "batch_tokens": int, "init_seed": int, "data_seed": int},
    "params": PARAMS,
    "flops": NUMBER,
    "lr": NUMBER,
}
DIVERGED: dict[str, Any] = {"val_se": None, "bits_per_byte": None}  # what the result of a run that diverged lacks


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
    telemetry: dict[str, np.ndarray] = field(default_factory=dict)  # name -> (k,), "tokens" among them; {}: none


class Store:
    """Paths and whole files below one root."""

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(root)
        found = read_json(self.root / "store.json")
        if found is not None and found != {"format": FORMAT}:
            written = found.get("format") if isinstance(found, dict) else found
            raise RequestError(
                f"store={self.root}: of format {written}, this version reads {FORMAT}; "
                "use the proxytrain that wrote it, or another store"
            )

    def check_writable(self) -> None:
        """Raises RequestError where the folder cannot be made or written to."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = "not a folder" if isinstance(error, FileExistsError) else error.strerror
        else:
            why = None if os.access(self.root, os.W_OK | os.X_OK) else "it cannot be written to"
        if why:
            raise RequestError(f"store={self.root}: {why}; name a folder that you can write to")

    def mark(self) -> None:
        """Say which format this store has, once."""
        if not (self.root / "store.json").exists():
            write_json(self.root / "store.json", {"format": FORMAT})

    def inside(self, path: Path) -> Path:
        """The path, unless links on the way lead out of the store."""
        real = os.path.realpath(path)
        if not real.startswith(os.path.join(os.path.realpath(self.root), "")):
            raise RequestError(f"{path}: a link that leads out of the store, to {real}; remove it")
        return path

    def corpora(self) -> Path:
        return self.root / "corpora"

    def sweep(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise RequestError(f"sweep.name={name}: letters, digits, '.', '_' and '-' only")
        return self.inside(self.root / "sweeps" / name)

    def sweeps(self) -> list[str]:
        folder = self.root / "sweeps"
        return sorted(p.parent.name for p in folder.glob("*/plan.json")) if folder.is_dir() else []

    def segment(self, key: Key) -> Path:
        return self.root / "segments" / check_id(key[0]) / str(int(key[1]))

    def run(self, run_id: str) -> Path:
        return self.root / "runs" / check_id(run_id)

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
        """`result.json` of a run; None while there is none.

        Raises
        ------
        RequestError
            If the file is not what it should be.
        """
        path = self.run(run_id) / "result.json"
        return _checked(path, RESULT, {"id": run_id}, DIVERGED)

    def meta(self, key: Key) -> dict[str, Any] | None:
        """`segment.json` of a segment; None while it is not published. Raises as `result`."""
        return _checked(self.segment(key) / "segment.json", SEGMENT, {"end": key[1]})

    def segment_status(self, key: Key) -> str | None:
        """done or diverged; None while a segment is not published."""
        meta = self.meta(key)
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
        try:
            return self.curve_to((result["lineage"], result["end"]), result["recipe"]["batch_tokens"])
        except RequestError as error:
            raise RequestError(f"{error}; delete {self.run(run_id)} as well, and run the sweep again") from None

    def curve_to(self, key: Key | None, batch_tokens: int) -> RunCurve:
        pieces, sampled = [], []
        while key is not None:
            meta = self.meta(key)
            if meta is None:
                raise RequestError(f"{self.segment(key)}: the segment is missing")
            path = self.segment(key) / "curve.npz"
            try:
                with np.load(path, allow_pickle=False) as file:
                    pieces.append({name: file[name] for name in CURVE})
                    if "telemetry" in file:
                        sampled.append(by_name(file["telemetry_tokens"], file["telemetry"], meta["telemetry"]))
            except Exception as error:  # a file that somebody else may have written: whatever is wrong with it
                raise RequestError(f"{path}: not a whole curve ({error}); delete {path.parent}") from None
            before = tuple(meta["parent"]) if meta["parent"] else None
            if before and not (len(before) == 2 and isinstance(before[1], int) and before[1] < key[1]):
                raise RequestError(f"{path.parent}: its parent {before} is none; delete it")
            key = before
        joined = {name: np.concatenate([p[name] for p in reversed(pieces)]) for name in CURVE}
        return RunCurve(step=joined["tokens"] // batch_tokens - 1, telemetry=end_to_end(sampled[::-1]), **joined)


@contextmanager
def publishing(target: Path, record: str) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well; the first to come wins.

    A later one adds only files that the first lacks (a state that was thrown away). Where `record`, the file that says
    what the others are, is lost, they may be of another stretch of training: the later one takes the place of all.
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
    """`write_text` of bytes."""
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
    """A file to append to, never through a link, which could lead anywhere."""
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o644))


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


def _checked(
    path: Path, kinds: dict[str, Any], same: dict[str, Any], absent: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """A JSON object that has these keys, of these kinds; `absent` are values of keys that it may lack."""
    try:
        content = read_json(path)
    except RequestError:
        content = {}
    if content is None:
        return None
    content = {**absent, **content} if absent and isinstance(content, dict) else content
    if not fits(content, kinds) or any(content[k] != value for k, value in same.items()):
        raise RequestError(f"{path}: not what proxytrain writes there; delete {path.parent}, and it is made again")
    return dict(content)


def fits(value: Any, kinds: Any) -> bool:
    """Whether a value of JSON is of one of these types, or a mapping that has all of these keys, of these kinds."""
    if isinstance(kinds, dict):
        return isinstance(value, dict) and all(fits(value.get(k, ...), kind) for k, kind in kinds.items())
    return isinstance(value, kinds)


def by_name(tokens: np.ndarray, values: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Telemetry as arrays by name, from its tokens (m,) and values (m, columns); {} where nothing was seen."""
    return {"tokens": tokens, **dict(zip(columns, values.T, strict=True))} if len(tokens) else {}


def end_to_end(pieces: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Telemetry of stretches of training in order; NaN where one lacks what another has."""
    found = [p for p in pieces if p]
    names = dict.fromkeys(name for p in found for name in p)
    return {n: np.concatenate([p.get(n, np.full(len(p["tokens"]), np.nan)) for p in found]) for n in names}


def check_id(text: object) -> str:
    """A name from a plan or a result, which must not lead out of the store."""
    if not isinstance(text, str) or not ID.fullmatch(text):
        raise RequestError(f"{text!r}: no id of a run or a segment")
    return text


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, outlast a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
