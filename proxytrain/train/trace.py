"""What the checkpoints of packs under way say of their members' curves; read without torch, for those who watch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.store.curves import CURVE_ARRAYS, by_name, end_to_end
from proxytrain.store.documents import Key

CHECKPOINT_FORMAT = 1
UPDATES = CURVE_ARRAYS[:4]  # with a row per update; eval_tokens and eval_loss have rows of their own
SAMPLED = ("telemetry_tokens", "telemetry")  # the second (m, columns), see `telemetry`


@dataclass(frozen=True)
class Trace:
    """How far a member was at a checkpoint, and the files that hold its curve since the start of its segment."""

    member: Key  # its last segment
    goal: Key  # the segment that it trains
    position: int  # tokens
    chunks: tuple[Path, ...]
    columns: tuple[str, ...]  # of telemetry

    def rows(self) -> dict[str, Array]:
        """Return the curve since the start of the segment, as arrays of `CURVE_ARRAYS`.

        Raises
        ------
        Exception
            Whatever is wrong with the files: a worker may have removed them meanwhile.
        """
        pieces = self._read(CURVE_ARRAYS)
        return {name: np.concatenate([p[name] for p in pieces]) for name in CURVE_ARRAYS}

    def telemetry(self) -> dict[str, Array]:
        """The telemetry of it by name; raises as `rows`."""
        return end_to_end([by_name(p["telemetry_tokens"], p["telemetry"], self.columns) for p in self._read(SAMPLED)])

    def _read(self, names: Sequence[str]) -> list[dict[str, Array]]:
        pieces = []
        for chunk in self.chunks:
            with np.load(chunk, allow_pickle=False) as file:
                pieces.append({name: file[f"{member_name(self.member)}.{name}"] for name in names})
        return pieces


def member_name(key: Key) -> str:
    """A member's name in curve files."""
    return f"{key[0]}-{key[1]}"


def meta(state: Path) -> list[dict[str, Any]] | None:
    """What a checkpoint says of its members; None where it cannot be read."""
    try:
        with np.load(state, allow_pickle=False) as file:
            content = json.loads(file["meta"].tobytes())
        return content["members"] if content["format"] == CHECKPOINT_FORMAT else None
    except Exception:
        return None


def traces(packs: Path) -> dict[Key, Trace]:
    """The furthest checkpoint of every member under way, of a sweep's folder of packs."""
    found: dict[Key, Trace] = {}
    for state in packs.glob("*/attempt-*/state-*.npz"):
        for m in meta(state) or []:
            chunks = tuple(state.with_name(Path(c).name) for c in m["chunks"])
            member, goal = ((m[name][0], m[name][1]) for name in ("member", "goal"))
            trace = Trace(member, goal, int(m["position"]), chunks, tuple(m.get("telemetry", ())))
            if trace.member not in found or trace.position > found[trace.member].position:
                found[trace.member] = trace
    return found
