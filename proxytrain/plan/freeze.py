"""The plan: what a sweep trains, written down once. Workers read it; they never see the configuration.

`make` goes from runs to packs, leaving out what the store has; `save` and `load` keep the plan as `plan.json`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxytrain.config.recipe import NUMERICS_VERSION, Recipe, canonical, digest
from proxytrain.config.schedule import Phase
from proxytrain.config.schema import Config, Train
from proxytrain.config.section import build
from proxytrain.errors import RequestError
from proxytrain.files.atomic import read_json, write_json
from proxytrain.model import accounting
from proxytrain.plan import cost
from proxytrain.plan.pack import Member, Pack, pack, work
from proxytrain.plan.runs import Run
from proxytrain.plan.share import Segment, forest, lineages
from proxytrain.plan.speed import Speeds
from proxytrain.store.documents import NUMBER, PARAMS, check_id, fits
from proxytrain.store.store import Key, Store

PLAN_FORMAT = 1
RECORD = {  # of a run
    "id": str,
    "schedule": str,
    "lr": NUMBER,
    "tokens": int,
    "params": PARAMS,
    "flops": NUMBER,
    "config": {"model": {"width": int, "depth": int}, "batch_tokens": int, "init_seed": int, "data_seed": int},
}
COSTS: dict[str, Any] = {"device": str, "machine": str, "threads": int, "native": bool, "workers": int}
COSTS |= dict.fromkeys(("runs", "segments", "tokens_unshared", "tokens_shared"), NUMBER)
COSTS |= dict.fromkeys(("flops_shared", "tokens_to_train", "flops_to_train", "seconds", "memory", "disk"), NUMBER)
LARGEST_PACK = {"cpu": 4, "cuda": 64}  # members; throughput levels off beyond (FINDINGS.md)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Runs of a sweep, the target, and the packs that train what was missing when it was made."""

    name: str
    request: str  # digest of runs and target: the same request keeps its plan
    corpus: str
    train: Train
    micro_batches: dict[str, int]  # a pack
    runs: dict[str, dict[str, Any]]  # id -> config, params, tokens, flops
    target: dict[str, Any] | None
    packs: list[Pack]
    costs: dict[str, Any]


def run_record(run: Run, config: Config) -> dict[str, Any]:
    """What is kept of a run beside its id: for its `config.yaml`, for tables and for people."""
    counts = accounting.params(run.recipe.model, run.recipe.vocab)
    return {
        "id": run.id,
        "schedule": run.schedule,
        "lr": run.lr,
        "tokens": run.tokens,
        "params": counts,
        "flops": run.tokens * accounting.flops_per_token(run.recipe.model, run.recipe.vocab),
        "config": {
            "model": canonical(config.model),
            "parametrization": canonical(config.parametrization),
            "optimizer": canonical(config.optimizer),
            "schedule": canonical(config.schedule),
            "tokens": run.tokens,
            "lr": config.lr,
            "warmup": config.warmup,
            "batch_tokens": config.batch_tokens,
            "init_seed": run.recipe.init_seed,
            "data_seed": run.recipe.data_seed,
        },
    }


def request_of(runs: list[dict[str, Any]], target: dict[str, Any] | None) -> str:
    return digest([NUMERICS_VERSION, sorted(r["id"] for r in runs), target["id"] if target else None])


def make(
    name: str,
    runs: list[Run],
    records: list[dict[str, Any]],
    target: dict[str, Any] | None,
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
        request=request_of(records, target),
        corpus=runs[0].recipe.corpus,
        train=train,
        micro_batches=micro,
        runs={r["id"]: r for r in records},
        target=target,
        packs=packs,
        costs=_costs(segments, records, target, packs, micro, workers, device, threads, native, train, speeds),
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
        micro = _micro_batches(plan.packs, train.memory, device, bool(plan.costs.get("native")))
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
    """Write `plan.json`: recipes, segments and packs as tables that refer to each other."""
    recipes: dict[str, Any] = {}
    packs = []
    for p in plan.packs:
        members = []
        for member in p.members:
            recipes[member.recipe.id] = canonical(member.recipe)
            members.append([_segment_json(s) for s in member.segments])
        packs.append({"id": p.id, "members": members})
    content = {
        "format": PLAN_FORMAT,
        **{k: getattr(plan, k) for k in ("name", "request", "corpus", "costs", "target", "micro_batches", "runs")},
        "train": canonical(plan.train),
        "recipes": recipes,
        "packs": packs,
    }
    write_json(path, {**content, "checksum": _checksum(content)}, indent=None)


def load(path: Path) -> Plan:
    """Read `plan.json`.

    Raises
    ------
    RequestError
        If the file is missing, broken or of another format.
    """
    content = read_json(path)
    if content is None:
        raise RequestError(f"{path}: no such plan; `proxytrain sweep` or `proxytrain plan` writes it")
    if not isinstance(content, dict):
        raise RequestError(f"{path}: not a plan; delete it and plan again")
    if content.get("format") != PLAN_FORMAT:
        raise RequestError(f"{path}: format {content.get('format')}, this version reads {PLAN_FORMAT}; plan again")
    written = content.pop("checksum", None)
    if written is not None and written != _checksum(content):
        raise RequestError(f"{path}: not as it was written (edited by hand?); delete it and plan again")
    try:
        recipes = {name: build(Recipe, tree) for name, tree in content["recipes"].items()}
        packs = [
            Pack(tuple(Member(tuple(_segment(n, recipes) for n in m)) for m in p["members"])) for p in content["packs"]
        ]
        plan = Plan(
            name=path.parent.name,
            **{k: content[k] for k in ("request", "corpus", "costs", "target", "micro_batches", "runs")},
            train=build(Train, content["train"], "train"),
            packs=packs,
        )
        known = [*plan.runs.values(), *([plan.target] if plan.target else [])]
        if not fits({"machine": "", "threads": 1, "native": False, **plan.costs}, COSTS) or not all(
            fits(record, RECORD) for record in known
        ):
            raise ValueError("costs or records of runs are not what is written there")
        for name in (plan.corpus, *plan.runs, *(s.lineage for p in packs for m in p.members for s in m.segments)):
            check_id(name)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise RequestError(f"{path}: not a whole plan ({error!r}); delete it and plan again") from None
    named = [*content["recipes"], *(p["id"] for p in content["packs"])]
    if named != [*(r.id for r in recipes.values()), *(p.id for p in packs)]:
        raise RequestError(f"{path}: its content does not match its ids (edited by hand?); delete it and plan again")
    return plan


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _segment_json(segment: Segment) -> dict[str, Any]:
    return {
        "recipe": segment.recipe.id,
        "lr": segment.lr,
        "phases": [[p.kind, p.start, p.end, dict(p.params)] for p in segment.phases],
        "lineage": segment.lineage,
        "parent": segment.parent,
        "run": segment.run_id,
    }


def _segment(tree: dict[str, Any], recipes: dict[str, Recipe]) -> Segment:
    return Segment(
        recipe=recipes[tree["recipe"]],
        lr=tree["lr"],
        phases=tuple(Phase(k, a, b, tuple(p.items())) for k, a, b, p in tree["phases"]),
        lineage=tree["lineage"],
        parent=tuple(tree["parent"]) if tree["parent"] else None,
        run_id=tree["run"],
    )


def _costs(
    segments: dict[Key, Segment],
    records: list[dict[str, Any]],
    target: dict[str, Any] | None,
    packs: list[Pack],
    micro: dict[str, int],
    workers: int,
    device: str,
    threads: int,
    native: bool,
    train: Train,
    speeds: Speeds | None,
) -> dict[str, Any]:
    """Totals for people: what sharing saves, and what is left to do."""

    def took(pack: Pack) -> float:
        return cost.seconds(pack, device, speeds, cost.compiled(pack, train, device, speeds))

    a_token = {r["id"]: r["flops"] / r["tokens"] for r in records}
    by_recipe = {s.recipe.id: a_token[s.run_id] for s in segments.values() if s.run_id}
    return {
        "runs": len(records),
        "segments": len(segments),
        "tokens_unshared": sum(r["tokens"] for r in records),
        "tokens_shared": sum(s.end - s.start for s in segments.values()),
        "flops_unshared": sum(r["flops"] for r in records),
        "flops_shared": sum((s.end - s.start) * by_recipe[s.recipe.id] for s in segments.values()),
        "tokens_to_train": sum(m.tokens for p in packs for m in p.members),
        "flops_to_train": sum(work(p) for p in packs),
        "seconds": cost.elapsed(packs, workers, device, alone=took) if packs else 0.0,
        "memory": max((cost.memory(p, micro[p.id], device, native) for p in packs), default=0),
        "disk": sum(cost.disk(m, train.keep_weights) for p in packs for m in p.members),
        "disk_meanwhile": cost.checkpoints(packs, workers),
        "workers": workers,
        "threads": threads,
        "native": native,
        "device": device,
        "machine": speeds.name if speeds else "",
        "gap": target["flops"] / max(r["flops"] for r in records) if target else None,
    }
