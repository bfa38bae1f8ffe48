"""The state of a pack under way, on disk, so that an interruption costs one interval at most.

    attempt-NNN-TOKEN/state-NNNNNN.npz   weights, moments and updates of all members (under schedule=average the mean of
                                         their weights too), their positions and curve files
    attempt-NNN-TOKEN/curve-NNNNNN.npz   the rows of their curves since the checkpoint before

A checkpoint copies the state and lets training go on while a thread writes: under a temporary name, synced, renamed.
The zip's checksums say whether a file is whole. The last two are kept, so a broken one means the one before it. There
are no random states to keep: the stream of text is a function of the position, and nothing else is drawn.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from proxytrain.arrays import Array
from proxytrain.files.atomic import sync, temporary
from proxytrain.plan.pack import Member, Pack
from proxytrain.process import say
from proxytrain.store.curves import CURVE_ARRAYS
from proxytrain.store.documents import Key
from proxytrain.train import average, telemetry, trace
from proxytrain.train.members import Active, Rows
from proxytrain.train.trace import CHECKPOINT_FORMAT, SAMPLED, UPDATES

KEPT = 2


@dataclass(frozen=True)
class Snapshot:
    """A state as it was, and what of the curves was not on disk yet."""

    state: dict[str, Array]
    curve: dict[str, Array]
    new: list[tuple[Active, int, dict[str, int]]]  # member, its segment, pieces of its curve that the snapshot covers


class Saver:
    """Writes the checkpoints of one attempt, one at a time, behind training's back."""

    def __init__(self, attempt: Path, others: Callable[[], list[Path]]):
        self.attempt, self.others = attempt, others
        self.number = 0
        self._thread: threading.Thread | None = None
        self._pending: Snapshot | None = None
        self._error: Exception | None = None

    def save(self, rows: Rows, *, wait: bool = False) -> bool:
        """Begin a checkpoint; false where the one before it is still being written. `wait` waits for both, and it is
        false where this one could not be written.
        """
        if self._thread and self._thread.is_alive() and not wait:
            return False
        self.close()
        self.number += 1
        self._pending = _snapshot(rows, f"curve-{self.number:06d}.npz")
        self._thread = threading.Thread(target=self._write, args=(self._pending, self.number))
        self._thread.start()
        return self.close() if wait else True

    def close(self) -> bool:
        """Wait for the thread; what it wrote need not be written again. False where it could not write."""
        if self._thread is None or self._pending is None:
            return True
        self._thread.join()
        written = self._error is None
        if written:
            for a, at, pieces in self._pending.new:
                if a.at == at:  # else its segment has ended since, and its curve begins there
                    a.saved, a.chunks = pieces, [*a.chunks, f"curve-{self.number:06d}.npz"]
        elif self.attempt.is_dir():  # else another worker has finished the pack
            say(f"{self.attempt}: checkpoint not written ({self._error}); the one before it stays")
        self._thread = self._pending = self._error = None
        return written

    def _write(self, snapshot: Snapshot, number: int) -> None:
        try:
            _write(self.attempt / f"curve-{number:06d}.npz", snapshot.curve)
            _write(self.attempt / f"state-{number:06d}.npz", snapshot.state)
            sync(self.attempt)
        except Exception as error:  # told by `close`
            self._error = error
            return
        self._prune()

    def _prune(self) -> None:
        """Keep the last two states with their curves; while only one is here, the attempt before keeps its own."""
        states = sorted(self.attempt.glob("state-*.npz"))
        needed = {name for path in states[-KEPT:] for m in (trace.meta(path) or []) for name in m["chunks"]}
        old = [*states[:-KEPT], *(p for p in self.attempt.glob("curve-*.npz") if p.name not in needed)]
        others = sorted(self.others())
        spare = [folder for folder in others if any(folder.glob("state-*.npz"))][-1:] if len(states) < KEPT else []
        old += [p for folder in others if folder not in spare for p in folder.glob("*.npz")]
        for path in old:
            path.unlink(missing_ok=True)


def latest(folders: Sequence[Path], pack: Pack, device: torch.device) -> Rows | None:
    """The furthest whole checkpoint of the members of a pack; None if there is none.

    Parameters
    ----------
    folders : of the pack, and of the packs that it was split from
    """
    found = []
    for path in (p for folder in folders for p in folder.glob("attempt-*/state-*.npz")):
        meta = trace.meta(path)
        if meta is None:
            say(f"{path}: not a whole checkpoint; the one before it is used, or the start")
        elif mine := list(_mine(meta, pack)):
            found.append((sum(m["position"] - member.end for _, _, member, m in mine), path))
    for _, path in sorted(found, reverse=True):
        try:
            return _load(path, pack, device)
        except Exception as error:  # a file that somebody else may have written: whatever is wrong with it
            say(f"{path}: not a whole checkpoint ({error}); the one before it is used, or the start")
    return None


def _snapshot(rows: Rows, chunk: str) -> Snapshot:
    new = [(a, a.at, {name: len(pieces) for name, pieces in a.curve.items()}) for a in rows.active]
    curve = {f"{_name(a)}.{name}": values for a in rows.active for name, values in a.rows(a.saved).items()}
    meta = [
        {
            "member": a.member.segments[-1].key,
            "goal": a.goal.key,
            "position": a.position,
            "seconds": a.seconds,
            "chunks": [*a.chunks, chunk],
            "telemetry": telemetry.columns(a.member.recipe),
        }
        for a in rows.active
    ]
    text = json.dumps({"format": CHECKPOINT_FORMAT, "members": meta}).encode()
    s = rows.state
    buffers = {"weights": s.weights, "first": s.first, "second": s.second, "updates": s.updates}
    state = {name: t.detach().to("cpu", copy=True).numpy() for name, t in buffers.items()}
    state |= {f"mean.{_name(a)}": a.mean for a in rows.active if a.mean is not None}
    return Snapshot({"meta": np.frombuffer(text, np.uint8), **state}, curve, new)


def _write(path: Path, arrays: dict[str, Array]) -> None:
    fresh = temporary(path)
    try:
        with open(fresh, "xb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _mine(meta: list[dict[str, Any]], pack: Pack) -> Iterator[tuple[int, int, Member, dict[str, Any]]]:
    """(row, index in the pack, member, what is said of it) of the members that a state has of a pack."""
    wanted: dict[Key, tuple[int, Member]] = {m.segments[-1].key: (i, m) for i, m in enumerate(pack.members)}
    for row, m in enumerate(meta):
        name, end = m["member"]
        if (name, end) in wanted:
            yield row, *wanted[name, end], m


def _load(path: Path, pack: Pack, device: torch.device) -> Rows:
    """Rows as they were saved; any exception means that something is wrong with the files."""
    curves: dict[str, dict[str, Array]] = {}
    with np.load(path, allow_pickle=False) as file:
        state = {name: file[name] for name in ("weights", "first", "second", "updates")}
        mine = list(_mine(json.loads(file["meta"].tobytes())["members"], pack))
        means = {name: file[name] for name in file.files if name.startswith("mean.")}
    active = []
    for _, index, member, m in mine:
        at = next(i for i, s in enumerate(member.segments) if s.key == tuple(m["goal"]))
        position, seconds = int(m["position"]), float(m["seconds"])
        a = Active(index=index, member=member, position=position, at=at, seconds=seconds)
        for chunk in m["chunks"]:
            if chunk not in curves:
                with np.load(path.with_name(Path(chunk).name), allow_pickle=False) as file:
                    curves[chunk] = {name: file[name] for name in file.files}
            for name in CURVE_ARRAYS:
                a.curve[name].append(curves[chunk][f"{_name(a)}.{name}"])
            for name in SAMPLED if m.get("telemetry") == telemetry.columns(member.recipe) else ():  # of this version
                a.curve[name].append(curves[chunk][f"{_name(a)}.{name}"])
        B = member.recipe.batch_tokens
        expected = np.arange(a.goal.start + B, a.position + 1, B)
        rows = a.rows()
        if (
            a.position > a.goal.end
            or not np.array_equal(rows["tokens"], expected)
            or any(len(rows[name]) != len(expected) for name in UPDATES)
            or len(rows["telemetry"]) != len(rows["telemetry_tokens"])
        ):
            raise ValueError("curve and state disagree")
        w = average.window(a)
        if w and w.counted:
            a.mean = means[f"mean.{_name(a)}"].astype(np.float64, casting="equiv").reshape(state["weights"].shape[1:])
        active.append(a)
    restored = Rows.allocate(active, device)
    for i, (row, _, _, _) in enumerate(mine):
        values = np.stack([state[name][row] for name in ("weights", "first", "second")])
        restored.restore(i, values.astype(np.float32, casting="equiv"), int(state["updates"][row, 0]))
    return restored


def _name(a: Active) -> str:
    return trace.member_name(a.member.segments[-1].key)
