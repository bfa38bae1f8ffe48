"""The plan: what a sweep trains, written down once. Workers read it; they never see the configuration.

`make` goes from runs to packs, leaving out what the store has; `save` and `load` keep the plan as `plan.json`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from proxytrain.config.recipe import NUMERICS_VERSION, Recipe, digest
from proxytrain.config.schedule import Phase
from proxytrain.config.schema import Train
from proxytrain.errors import RequestError
from proxytrain.files.documents import Document, checksum, read_document, write_document
from proxytrain.plan import cost
from proxytrain.plan.pack import Member, Pack, pack, work
from proxytrain.plan.runs import Run
from proxytrain.plan.share import Segment, forest, lineages
from proxytrain.plan.speed import Speeds
from proxytrain.store.documents import Key, RunRecord, check_id
from proxytrain.store.store import Store

PLAN_FORMAT = 1
LARGEST_PACK = {"cpu": 4, "cuda": 64}  # members; throughput levels off beyond (FINDINGS.md)


class Costs(Document, frozen=True, kw_only=True):
    """Totals of a plan, for people: what sharing saves, and what is left to do (estimates)."""

    runs: int
    segments: int
    tokens_unshared: int
    tokens_shared: int
    flops_unshared: float = 0.0
    flops_shared: float
    tokens_to_train: int
    flops_to_train: float
    seconds: float
    memory: int  # bytes of a worker
    disk: int  # bytes that stay
    disk_meanwhile: int = 0  # bytes of checkpoints while packs are trained
    workers: int
    threads: int = 1
    native: bool = False
    device: str
    machine: str = ""
    gap: float | None = None  # FLOPs of the target over those of the largest run


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Runs of a sweep, the target, and the packs that train what was missing when it was made."""

    name: str
    request: str  # digest of runs and target: the same request keeps its plan
    corpus: str
    train: Train
    micro_batches: dict[str, int]  # per pack
    runs: dict[str, RunRecord]  # by id
    target: RunRecord | None
    packs: list[Pack]
    costs: Costs


class _SegmentDocument(Document, frozen=True, kw_only=True):
    """A segment in `plan.json`, its recipe by id."""

    recipe: str
    lr: float
    phases: list[tuple[str, int, int, dict[str, float]]]
    lineage: str
    parent: Key | None
    run: str | None


class _PackDocument(Document, frozen=True, kw_only=True):
    """A pack in `plan.json`."""

    id: str
    members: list[list[_SegmentDocument]]


class _PlanDocument(Document, frozen=True, kw_only=True):
    """`plan.json`: recipes, segments and packs as tables that refer to each other."""

    format: int
    request: str
    corpus: str
    costs: Costs
    target: RunRecord | None
    micro_batches: dict[str, int]
    runs: dict[str, RunRecord]
    train: Train
    recipes: dict[str, Recipe]
    packs: list[_PackDocument]


def request_of(runs: list[Run], target: Run | None) -> str:
    """Return the digest of what is asked for: the runs and the target."""
    return digest([NUMERICS_VERSION, sorted(r.id for r in runs), target.id if target else None])


def make(
    name: str,
    runs: list[Run],
    target: Run | None,
    *,
    store: Store,
    train: Train,
    workers: int,
    device: str,
    memory: int,
    threads: int = 1,
    native: bool = False,
    speeds: Speeds | None = None,
) -> Plan:
    """The packs that train what the store lacks.

    Raises
    ------
    RequestError
        If not even one sequence of some run fits into the memory of a worker.
    """
    segments = forest(runs)
    stored = {(name, end): kept for name in lineages(runs) for end, kept in store.stored(name).items()}
    states = {key for key, kept in stored.items() if kept}
    todo = _todo(forest(runs, states) if states else segments, stored, store)
    packs = pack(todo, memory=memory, workers=workers, largest=LARGEST_PACK[device], device=device, native=native)
    micro = _micro_batches(packs, memory, device, native)
    return Plan(
        name=name,
        request=request_of(runs, target),
        corpus=runs[0].recipe.corpus,
        train=train,
        micro_batches=micro,
        runs={r.id: r.record for r in runs},
        target=target.record if target else None,
        packs=packs,
        costs=_costs(segments, runs, target, packs, micro, workers, device, threads, native, train, speeds),
    )


def changed(plan: Plan, train: Train, device: str) -> Plan:
    """Return the plan as one worker trains it: with other checkpoints, device or memory, which change no run.

    Parameters
    ----------
    train : of the plan, with other `checkpoint_seconds`, `device` or `memory` (micro-batches follow)
    device : cpu or cuda, on which the worker trains

    Raises
    ------
    RequestError
        If not even one sequence of some pack fits into the memory.
    """
    micro = plan.micro_batches
    if train.memory is not None and train.memory != plan.train.memory:
        micro = _micro_batches(plan.packs, train.memory, device, plan.costs.native)
    return dataclasses.replace(plan, train=train, micro_batches=micro)


def _micro_batches(packs: list[Pack], memory: int, device: str, native: bool) -> dict[str, int]:
    try:
        return {p.id: cost.micro_batches(p, memory, device, native) for p in packs}
    except ValueError as error:
        raise RequestError(
            f"train.memory={memory}: {error} does not fit; give more memory or a smaller model (no model is split over "
            "devices)"
        ) from None


def _todo(segments: dict[Key, Segment], stored: dict[Key, bool], store: Store) -> dict[Key, Segment]:
    """What is still to be trained or evaluated.

    A published segment whose run has no result is evaluated from its own state. A state that was thrown away is trained
    again if something starts from it, unless it diverged there.
    """
    chosen: dict[Key, Segment] = {}
    wanted: set[Key] = set()
    for key, segment in reversed(segments.items()):
        unevaluated = segment.run_id is not None and store.result(segment.run_id) is None
        if key not in stored or (unevaluated and not stored[key]):
            chosen[key] = segment
        elif unevaluated:
            chosen[key] = dataclasses.replace(segment, parent=key)
        elif key in wanted and not stored[key] and store.segment_status(key) != "diverged":
            chosen[key] = segment
        if key in chosen and chosen[key].parent:
            wanted.add(chosen[key].parent)  # type: ignore[arg-type]
    return {key: chosen[key] for key in segments if key in chosen}


def save(plan: Plan, path: Path) -> None:
    """Write `plan.json`, with a checksum of what it says."""
    members = [m for p in plan.packs for m in p.members]
    content = _PlanDocument(
        format=PLAN_FORMAT,
        **{k: getattr(plan, k) for k in ("request", "corpus", "costs", "target", "micro_batches", "runs", "train")},
        recipes={m.recipe.id: m.recipe for m in members},
        packs=[
            _PackDocument(id=p.id, members=[[_segment_document(s) for s in m.segments] for m in p.members])
            for p in plan.packs
        ],
    )
    tree = msgspec.to_builtins(content)
    write_document(path, {**tree, "checksum": checksum(tree)}, indent=None)


def load(path: Path) -> Plan:
    """Read `plan.json`.

    Raises
    ------
    RequestError
        If the file is missing, broken or of another format.
    """
    tree = read_document(path, dict[str, Any], "delete it and plan again")
    if tree is None:
        raise RequestError(f"{path}: no such plan; `proxytrain sweep` or `proxytrain plan` writes it")
    if tree.get("format") != PLAN_FORMAT:
        raise RequestError(f"{path}: format {tree.get('format')}, this version reads {PLAN_FORMAT}; plan again")
    written = tree.pop("checksum", None)
    if written is not None and written != checksum(tree):
        raise RequestError(f"{path}: not as it was written (edited by hand?); delete it and plan again")
    try:
        content = msgspec.convert(tree, _PlanDocument)
        packs = [Pack(tuple(Member(tuple(_segment(s, content) for s in m)) for m in p.members)) for p in content.packs]
        for name in (content.corpus, *content.runs, *(s.lineage for p in packs for m in p.members for s in m.segments)):
            check_id(name)
    except (KeyError, IndexError, ValueError) as error:
        raise RequestError(f"{path}: not a whole plan ({error}); delete it and plan again") from None
    if [p.id for p in content.packs] != [p.id for p in packs] or any(r.id != i for i, r in content.recipes.items()):
        raise RequestError(f"{path}: its content does not match its ids (edited by hand?); delete it and plan again")
    return Plan(
        name=path.parent.name,
        **{k: getattr(content, k) for k in ("request", "corpus", "costs", "target", "micro_batches", "runs", "train")},
        packs=packs,
    )


def _segment_document(segment: Segment) -> _SegmentDocument:
    return _SegmentDocument(
        recipe=segment.recipe.id,
        lr=segment.lr,
        phases=[(p.kind, p.start, p.end, dict(p.params)) for p in segment.phases],
        lineage=segment.lineage,
        parent=segment.parent,
        run=segment.run_id,
    )


def _segment(of: _SegmentDocument, plan: _PlanDocument) -> Segment:
    return Segment(
        recipe=plan.recipes[of.recipe],
        lr=of.lr,
        phases=tuple(Phase(kind, a, b, tuple(params.items())) for kind, a, b, params in of.phases),
        lineage=of.lineage,
        parent=of.parent,
        run_id=of.run,
    )


def _costs(
    segments: dict[Key, Segment],
    runs: list[Run],
    target: Run | None,
    packs: list[Pack],
    micro: dict[str, int],
    workers: int,
    device: str,
    threads: int,
    native: bool,
    train: Train,
    speeds: Speeds | None,
) -> Costs:

    def took(pack: Pack) -> float:
        return cost.seconds(pack, device, speeds, cost.compiled(pack, train, device, speeds))

    records = [r.record for r in runs]
    per_token = {r.id: r.flops / r.tokens for r in records}
    by_recipe = {s.recipe.id: per_token[s.run_id] for s in segments.values() if s.run_id}
    return Costs(
        runs=len(records),
        segments=len(segments),
        tokens_unshared=sum(r.tokens for r in records),
        tokens_shared=sum(s.end - s.start for s in segments.values()),
        flops_unshared=sum(r.flops for r in records),
        flops_shared=sum((s.end - s.start) * by_recipe[s.recipe.id] for s in segments.values()),
        tokens_to_train=sum(m.tokens for p in packs for m in p.members),
        flops_to_train=sum(work(p) for p in packs),
        seconds=cost.elapsed(packs, workers, device, alone=took) if packs else 0.0,
        memory=max((cost.memory(p, micro[p.id], device, native) for p in packs), default=0),
        disk=sum(cost.disk(m, train.keep_weights) for p in packs for m in p.members),
        disk_meanwhile=cost.checkpoints(packs, workers),
        workers=workers,
        threads=threads,
        native=native,
        device=device,
        machine=speeds.name if speeds else "",
        gap=target.record.flops / max(r.flops for r in records) if target else None,
    )
