"""Paths and lookups in the store, one folder in which the segments, runs and sweeps of all sweeps lie.

    segments/LINEAGE/END/   segment.json  curve.npz  state.npy (3, P): weights and moments, where training can go on
    runs/RUN_ID/            config.yaml  result.json  weights.safetensors
    sweeps/NAME/            plan.json  fit.json  curves.json  predictions.csv  report.html  packs/...
    corpora/                see `proxytrain.corpus`
    store.json              the format of all this

What lies here may come from anybody: it is data, never unpickled. Names cannot lead out of the store, and nothing is
written through links that do (`corpora` may be a link of yours).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NoReturn

import numpy as np

from proxytrain.errors import RequestError
from proxytrain.files.documents import D, read_document, write_document
from proxytrain.store.curves import CURVE_ARRAYS, RunCurve, end_to_end, read_segment
from proxytrain.store.documents import Key, RunResult, SegmentMeta, Status, StoreFormat, check_id

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
STORE_FORMAT = 1


class Store:
    """Paths and whole files below one root."""

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(root)
        found = read_document(self.root / "store.json", StoreFormat, "use another store")
        if found is not None and found.format != STORE_FORMAT:
            raise RequestError(
                f"store={self.root}: of format {found.format}, this version reads {STORE_FORMAT}; "
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
            write_document(self.root / "store.json", StoreFormat(STORE_FORMAT))

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

    def result(self, run_id: str) -> RunResult | None:
        """Return the result of a run; None while there is none.

        Raises
        ------
        RequestError
            If the file is not what it should be.
        """
        path = self.run(run_id) / "result.json"
        found = _document(path, RunResult)
        return found if found is None or found.id == run_id else _misplaced(path)

    def done(self, run_id: str) -> RunResult | None:
        """Return the result of a run that did not diverge; None for any other. Raises as `result`."""
        result = self.result(run_id)
        return result if result and result.status == "done" else None

    def meta(self, key: Key) -> SegmentMeta | None:
        """Return what a published segment is; None while it is not published. Raises as `result`."""
        path = self.segment(key) / "segment.json"
        found = _document(path, SegmentMeta)
        return found if found is None or found.end == key[1] else _misplaced(path)

    def segment_status(self, key: Key) -> Status | None:
        """Return how a segment ended; None while it is not published."""
        meta = self.meta(key)
        return meta.status if meta else None

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
            return self.curve_to(result.key, result.recipe.batch_tokens)
        except RequestError as error:
            raise RequestError(f"{error}; delete {self.run(run_id)} as well, and run the sweep again") from None

    def curve_to(self, key: Key | None, batch_tokens: int) -> RunCurve:
        pieces, sampled = [], []
        while key is not None:
            meta = self.meta(key)
            if meta is None:
                raise RequestError(f"{self.segment(key)}: the segment is missing")
            path = self.segment(key) / "curve.npz"
            rows, seen = read_segment(path, meta.telemetry)
            pieces.append(rows)
            sampled.append(seen)
            if meta.parent and meta.parent[1] >= key[1]:
                raise RequestError(f"{path.parent}: its parent {meta.parent} is none; delete it")
            key = meta.parent
        joined = {name: np.concatenate([p[name] for p in reversed(pieces)]) for name in CURVE_ARRAYS}
        updates = len(joined["tokens"])
        if (joined["tokens"] != batch_tokens * np.arange(1, updates + 1)).any():
            raise RequestError(f"{path.parent}: its updates do not follow those before it; delete it")
        return RunCurve(step=joined["tokens"] // batch_tokens - 1, telemetry=end_to_end(sampled[::-1]), **joined)


def _document(path: Path, cls: type[D]) -> D | None:
    return read_document(path, cls, f"delete {path.parent}, and it is made again")


def _misplaced(path: Path) -> NoReturn:
    raise RequestError(f"{path}: not what proxytrain writes there; delete {path.parent}, and it is made again")
