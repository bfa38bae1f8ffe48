"""What a store weighs, what of it can go, and whether it is whole: for `status`, `gc` and `status --check`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from proxytrain.errors import RequestError
from proxytrain.files.atomic import left_behind, read_state, remove
from proxytrain.plan import freeze
from proxytrain.plan.claims import holder
from proxytrain.plan.freeze import Plan
from proxytrain.plan.parts import finished, folders, unfinished
from proxytrain.store.documents import Key
from proxytrain.store.store import Store

PLACES = ("segments", "runs", "sweeps", "corpora")


def disk_use(store: Store) -> dict[str, int]:
    """Bytes below a store by kind: states, weights, checkpoints, and the rest of its four folders."""
    total: dict[str, int] = defaultdict(int)
    for place in PLACES:
        waiting = [store.root / place]
        while waiting:
            try:
                entries = list(os.scandir(waiting.pop()))
            except (FileNotFoundError, NotADirectoryError):  # it has gone meanwhile
                continue
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                    continue
                kind = {"state.npy": "states", "weights.safetensors": "weights"}.get(entry.name)
                checkpoint = place == "sweeps" and entry.name.endswith(".npz")
                total[kind or ("checkpoints" if checkpoint else place)] += entry.stat(follow_symlinks=False).st_size
    return dict(total)


def collect(store: Store, keep_weights: str, *, dry_run: bool) -> dict[str, tuple[int, int]]:
    """Free disk; what went, as kind -> (how many, bytes). Nothing that is being trained or waited for is touched.

    Temporary files and checkpoints that nobody needs always go; states at branch points unless `keep_weights` is all
    (a longer length added later then trains its trunk again); with none the weights of finished runs too.

    Raises
    ------
    RequestError
        If some sweep's plan cannot be read, so that it is not known what it needs.
    """
    plans = [freeze.load(store.sweep(name) / "plan.json") for name in store.sweeps()]
    went: dict[str, tuple[int, int]] = {}

    def drop(kind: str, path: Path) -> None:
        count, size = went.get(kind, (0, 0))
        went[kind] = count + 1, size + _size(path)
        if not dry_run:
            remove(store.inside(path.parent) / path.name)

    for folder in _folders(store):
        for path in left_behind(folder):
            drop("temporary files", path)
    needed: set[Key] = set()
    for plan in plans:
        needed |= {key for part in unfinished(plan, store) for key in part.pack.needs}
        needed |= {s.key for part in unfinished(plan, store) for m in part.pack.members for s in m.segments}
    for plan in plans:
        alive = {n for part in unfinished(plan, store) for n in part.names}
        for folder in folders(plan, store).glob("*"):
            if folder.name not in alive and not holder(folder):
                for path in folder.glob("attempt-*"):
                    drop("attempts", path)
    if keep_weights != "all":
        for path in store.root.glob("segments/*/*/state.npy"):
            if (path.parent.parent.name, int(path.parent.name)) not in needed:
                drop("states", path)
    if keep_weights == "none":
        for path in store.root.glob("runs/*/weights.safetensors"):
            drop("weights", path)
    return went


def problems(store: Store, plan: Plan) -> Iterator[str]:
    """What is wrong with a sweep's part of a store, a line each: broken or missing files, and what the dead left."""
    for pack in plan.packs:
        for segment in (s for m in pack.members for s in m.segments):
            if not store.published(segment.key):
                continue
            path = store.segment(segment.key) / "state.npy"
            try:
                store.meta(segment.key)
                if path.exists():
                    read_state(path)
            except RequestError as error:
                yield str(error)
            except ValueError as error:
                yield f"{path}: {error}; delete it, and it is made again where it is needed"
    for run_id, record in plan.runs.items():
        try:
            yield from (f"{store.run(run_id)}: {what}" for what in _curve_problems(store, run_id, record.tokens))
        except RequestError as error:
            yield str(error)
    for folder in _folders(store):
        yield from (f"{path}: a temporary file whose writer is dead; `proxytrain gc`" for path in left_behind(folder))
    for claim in folders(plan, store).glob("*/claim"):
        if not holder(claim.parent):
            yield f"{claim}: held by a dead worker; any worker takes it over"
    for pack in plan.packs:
        if finished(pack, store) and list((folders(plan, store) / pack.id).glob("attempt-*")):
            yield f"{folders(plan, store) / pack.id}: attempts at a pack that is done; `proxytrain gc`"


def _curve_problems(store: Store, run_id: str, tokens: int) -> Iterator[str]:
    result = store.result(run_id)
    if result is None:
        return
    curve = store.curve(run_id)
    B = result.recipe.batch_tokens
    end = tokens if result.diverged_at is None else result.diverged_at
    if not np.array_equal(curve.tokens, np.arange(B, end + 1, B)):
        yield f"its curve has {len(curve.tokens)} rows that do not go from the first update to token {end}"
    if not all(np.isfinite(v).all() for v in (curve.lr, curve.loss, curve.grad_norm)):
        yield "its curve is not finite"
    if result.status == "done" and not np.isfinite(result.final_loss or np.nan):
        yield "done, but without a loss"


def _folders(store: Store) -> Iterator[Path]:
    """Where temporary files may lie."""
    yield from (store.root, store.root / "runs", store.root / "segments")
    yield from store.root.glob("segments/*")
    for sweep in store.root.glob("sweeps/*"):
        yield sweep
        yield from sweep.glob("packs/*")
        yield from sweep.glob("packs/*/attempt-*")


def _size(path: Path) -> int:
    files = [path] if not path.is_dir() or path.is_symlink() else [p for p in path.rglob("*") if not p.is_dir()]
    return sum(p.lstat().st_size for p in files)
