"""The state of a pack under way, on disk: buffers, positions and curves in one folder that is whole or absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from proxytrain.plan.pack import Pack
from proxytrain.store import publishing
from proxytrain.train.members import ROWS, Active, Rows


def save(folder: Path, rows: Rows) -> Path:
    """Write the next checkpoint below an attempt's folder, then remove the one before it."""
    earlier = _numbered(folder)
    target = folder / f"checkpoint-{earlier[-1][0] + 1 if earlier else 1:06d}"
    with publishing(target) as temporary:
        np.save(temporary / "state.npy", np.stack([rows.snapshot(i) for i in range(len(rows.active))]))
        curves = {f"{a.index}.{name}": values for a in rows.active for name, values in a.rows().items()}
        np.savez(temporary / "curves.npz", **curves)  # type: ignore[arg-type]
        meta = [
            {"index": a.index, "node": a.node, "position": a.position, "seconds": a.seconds, "updates": int(u)}
            for a, u in zip(rows.active, rows.state.updates[:, 0].tolist())
        ]
        (temporary / "meta.json").write_text(json.dumps(meta))
    for _, path in earlier:
        shutil.rmtree(path, ignore_errors=True)
    return target


def latest(attempts: Path, pack: Pack, device: torch.device) -> Rows | None:
    """The furthest whole checkpoint of any attempt at a pack; None if there is none."""
    best: Rows | None = None
    for attempt in sorted(attempts.glob("attempt-*")):
        for _, path in reversed(_numbered(attempt)):
            rows = _load(path, pack, device)
            if rows is not None:
                best = rows if best is None or _progress(rows) > _progress(best) else best
                break
    return best


def _load(path: Path, pack: Pack, device: torch.device) -> Rows | None:
    try:
        meta = json.loads((path / "meta.json").read_text())
        states = np.load(path / "state.npy", allow_pickle=False)
        active = []
        with np.load(path / "curves.npz", allow_pickle=False) as curves:
            for m in meta:
                a = Active(m["index"], pack.members[m["index"]], m["position"], m["node"], m["seconds"])
                for name in ROWS:
                    a.curve[name].append(curves[f"{a.index}.{name}"])
                active.append(a)
        rows = Rows.allocate(active, device)
        for i, (m, values) in enumerate(zip(meta, states, strict=True)):
            rows.restore(i, values, m["updates"])
    except (OSError, EOFError, BadZipFile, ValueError, KeyError, IndexError, RuntimeError):
        print(f"{path}: not a whole checkpoint; an earlier one is used, or the start", flush=True)
        return None
    return rows


def _progress(rows: Rows) -> int:
    """Tokens trained: members that have left ran to their end."""
    return -sum(a.member.end - a.position for a in rows.active)


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    return sorted((int(p.name.rpartition("-")[2]), p) for p in folder.glob("checkpoint-*"))
