"""What the mirror shows of a sweep: its runs and what is known of each, from the store alone. Nothing of W&B here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import to_builtins

from proxytrain.arrays import Array
from proxytrain.errors import RequestError
from proxytrain.monitor.text import tokens
from proxytrain.plan import freeze
from proxytrain.plan.freeze import Plan
from proxytrain.plan.parts import failures
from proxytrain.store.curves import RunCurve, end_to_end
from proxytrain.store.documents import Key, RunRecord, RunResult
from proxytrain.store.store import Store
from proxytrain.train.trace import Trace, traces

MIRRORED_POINTS = 300  # of a curve: a quarter of them even in log tokens, the others even in tokens
TAG = 64  # characters that W&B allows


@dataclass(frozen=True, kw_only=True)
class MirroredRun:
    """One run as the mirror shows it."""

    id: str
    job: str  # run, or target
    labels: dict[str, str]  # what sets it apart in its sweep: width 64, tokens 4M
    config: dict[str, Any]
    position: int  # tokens trained
    ended: str | None  # done, diverged, failed; None while it trains
    result: RunResult | None
    why: str  # it failed
    record: RunRecord
    trace: Trace | None  # of a run that trains, or failed doing so
    parent: Key | None  # the segment from whose end its trace goes on

    @property
    def name(self) -> str:
        return " ".join(self.tags) or self.id

    @property
    def summary(self) -> dict[str, Any]:
        """Return its result as plain values, or why it failed."""
        if self.result:
            return {k: v for k, v in to_builtins(self.result).items() if v is not None}
        return {"status": self.ended, "why": self.why} if self.ended else {}

    @property
    def tags(self) -> list[str]:
        return [f"{k}={v}"[:TAG] for k, v in self.labels.items()]


def shown(store: Store, made: Plan) -> list[MirroredRun]:
    """The runs of a sweep that have begun, and those of its target that `verify` trains."""
    axes = _axes(list(made.runs.values()))
    begun = [*_begun(store, made, made.name, axes, "run")]
    with suppress(RequestError):  # none yet
        begun += _begun(store, freeze.load(store.sweep(f"{made.name}.verify") / "plan.json"), made.name, axes, "target")
    return begun


def _begun(store: Store, made: Plan, sweep: str, axes: list[str], job: str) -> Iterator[MirroredRun]:
    failed = {segment.run_id: failure.why for segment, failure in failures(made, store) if segment.run_id}
    traced = traces(store.sweep(made.name) / "packs")
    members = {m.segments[-1].run_id: m for p in made.packs for m in p.members if m.segments[-1].key in traced}
    for run_id, record in made.runs.items():
        try:
            result = store.result(run_id)
        except RequestError as error:
            result, failed[run_id] = None, str(error)
        member = members.get(run_id)
        trace = traced[member.segments[-1].key] if member else None
        ended = result.status if result else "failed" if run_id in failed else None
        if ended is None and trace is None:
            continue
        yield MirroredRun(
            id=run_id,
            job=job,
            labels=_labels(record, axes),
            config=_config(record, made, sweep),
            position=result.tokens if result else trace.position if trace else 0,
            ended=ended,
            result=result,
            why=failed.get(run_id, ""),
            record=record,
            trace=trace,
            parent=next(s.parent for s in member.segments if s.key == trace.goal) if member and trace else None,
        )


def rows(store: Store, run: MirroredRun) -> list[tuple[int, dict[str, float]]]:
    """(step, values) of the curve of a run from its first token on, the trunk it shares included; thinned.

    Which steps are kept depends on the run's length only, so that what is sent later fits to what was sent before.

    Raises
    ------
    Exception
        Of a run that trains: whatever happened to its files meanwhile. The next look finds others.
    """
    if run.ended == "failed" and run.trace is None:
        return []
    curve = _curve(store, run)
    batch = run.record.config.batch_tokens
    evals = {int(t): float(v) for t, v in zip(curve.eval_tokens, curve.eval_loss)}
    flops = run.record.flops / run.record.tokens
    looks, last = curve.telemetry.get("tokens", np.empty(0)), -1
    out = []
    for i in kept(curve.tokens, run.record.tokens // batch, evals):
        at = int(curve.tokens[i])
        row = {
            "tokens": at,
            "flops": at * flops,
            "train/lr": float(curve.lr[i]),
            "train/loss": float(curve.loss[i]),
            "train/grad_norm": float(curve.grad_norm[i]),
        }
        look = int(np.searchsorted(looks, at, side="right")) - 1
        if look > last:  # since the row before
            seen = {f"telemetry/{n}": float(v[look]) for n, v in curve.telemetry.items() if n != "tokens"}
            row |= {name: value for name, value in seen.items() if np.isfinite(value)}
            last = look
        out.append((int(curve.step[i]), row | ({"val/loss": evals[at]} if at in evals else {})))
    return out


def kept(position: Array, updates: int, evals: dict[int, float]) -> Array:
    """Indices of the rows that are shown: evenly spread steps of the whole run, and all with an evaluation."""
    if updates > MIRRORED_POINTS:
        few, many = MIRRORED_POINTS // 4, 3 * MIRRORED_POINTS // 4
        grid = np.concatenate([np.geomspace(1, updates, few), np.linspace(1, updates, many)])
    else:
        grid = np.arange(1, updates + 1)
    wanted = np.unique(np.round(grid)).astype(int) - 1
    rows = wanted[wanted < len(position)]
    return np.union1d(rows, np.flatnonzero(np.isin(position, list(evals))))


def _curve(store: Store, run: MirroredRun) -> RunCurve:
    if run.trace is None or run.ended in ("done", "diverged"):
        return store.curve(run.id)
    batch = run.record.config.batch_tokens
    whole, looks = run.trace.rows(), run.trace.telemetry()
    if run.parent:
        before = store.curve_to(run.parent, batch)
        whole = {name: np.concatenate([getattr(before, name), new]) for name, new in whole.items()}
        looks = end_to_end([before.telemetry, looks])
    return RunCurve(step=whole["tokens"] // batch - 1, telemetry=looks, **whole)


def _axes(records: list[RunRecord]) -> list[str]:
    """Keys that all runs have and that set them apart; not those that follow from the schedule or the seed."""
    flat = [r.settings for r in records]
    axes = [k for k in flat[0] if all(k in f for f in flat) and len({str(f[k]) for f in flat}) > 1]

    def follows(key: str, other: str) -> bool:
        return key != other and len({(str(f[key]), str(f[other])) for f in flat}) == len({str(f[other]) for f in flat})

    given = {"data_seed": "init_seed", **{k: "schedule.name" for k in axes if k.startswith("schedule.")}}
    return [k for k in axes if not (given.get(k) in axes and follows(k, given[k]))]


def _labels(record: RunRecord, axes: list[str]) -> dict[str, str]:
    """Axis -> value of a run, as people write them: width=64, tokens=4M, schedule=wsd."""
    labels = {}
    for key in axes:
        value: Any = record.settings.get(key)
        plain = key.removesuffix(".name").rpartition(".")[2]
        many = isinstance(value, int) and ("tokens" in plain or plain == "warmup")
        labels[plain] = tokens(value) if many else f"{value:g}" if isinstance(value, float) else str(value)
    return labels


def _config(record: RunRecord, made: Plan, sweep: str) -> dict[str, Any]:
    """The run's configuration with its nested keys, and what belongs to it without being asked for."""
    return {
        **to_builtins(record.config),
        "sweep": sweep,
        "corpus": made.corpus,
        "precision": made.train.precision,
        "flops": record.flops,
        "params": {**to_builtins(record.params), "total": record.params.total},
        "params_nonembedding": record.params.non_embedding,
    }
