"""How far a plan is, read off the store alone: what workers, of this machine or of any other, published and report.

Time left comes from the plan's cost of what is left, pack by pack, scaled by how the estimate held for what is done;
tokens left over tokens a second would be wrong by the width of the packs that happen to come first.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxytrain.errors import RequestError
from proxytrain.files.atomic import read_json
from proxytrain.model import accounting
from proxytrain.monitor.text import describe, tokens
from proxytrain.plan import cost, speed
from proxytrain.plan.claims import attempts, holder
from proxytrain.plan.freeze import Plan
from proxytrain.plan.pack import Pack
from proxytrain.plan.parts import Part, failure_records, failures, folders, parts
from proxytrain.store.store import Store

PRIOR_SECONDS = 20.0  # of work that went as estimated, until there is more to judge the estimate by
REMEMBERED = 64  # packs done, whose times say how the estimate holds
KEPT_EVENTS = 64  # that are kept


@dataclass(frozen=True)
class AtWork:
    """A pack that a living worker holds."""

    pack: Pack
    on: dict[str, Any]  # host, pid, and job under SLURM
    attempt: int
    report: dict[str, Any] | None  # the worker's last: tokens, tokens_per_second, loss a member, ...

    @property
    def tokens(self) -> int:
        return self.report["tokens"] if self.report else 0

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.report["tokens_per_second"] if self.report else 0.0

    @property
    def flops(self) -> float:
        """Model FLOPs a second."""
        recipe = self.pack.members[0].recipe
        return self.speed * accounting.flops_per_token(recipe.model, recipe.vocab)


@dataclass(frozen=True, kw_only=True)
class PlanProgress:
    """A plan at one moment."""

    plan: Plan
    runs: dict[str, dict[str, Any]]  # id -> state (done, diverged, failed, running, waiting), and loss, why, on whom
    tokens: int  # trained, of those that the plan trains
    total: int
    share: float  # of the work, by the plan's cost
    at_work: list[AtWork]
    seconds_left: float | None  # None while nobody works
    events: list[tuple[float, str]]  # the last ones: time, what happened

    @property
    def counts(self) -> Counter[str]:
        """Runs by state."""
        return Counter(run["state"] for run in self.runs.values())

    @property
    def over(self) -> bool:
        """Whether nothing is left but what failed."""
        return not self.counts["running"] and not self.counts["waiting"]

    @property
    def speed(self) -> float:
        return sum(a.speed for a in self.at_work)

    @property
    def flops(self) -> float:
        return sum(a.flops for a in self.at_work)

    @property
    def utilisation(self) -> float | None:
        """Model FLOPs a second as a share of what the workers could do at best; None before they report."""
        peak = sum(a.report.get("peak_flops", 0.0) for a in self.at_work if a.report)
        return self.flops / peak if peak else None

    def summary(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "tokens": self.tokens,
            "tokens_to_train": self.total,
            "share_of_work": self.share,
            "tokens_per_second": self.speed,
            "flops_per_second": self.flops,
            "utilisation": self.utilisation,
            "packs_at_work": len(self.at_work),
            "seconds_left": self.seconds_left,
        }


class Watch:
    """Looks at a plan again and again; what was seen done is not read a second time."""

    def __init__(self, plan: Plan, store: Store):
        self.plan, self.store = plan, store
        self.total = sum(m.tokens for p in plan.packs for m in p.members)
        costs, precision = plan.costs, plan.train.precision
        self.device = costs["device"]
        self.speeds = speed.load(store, costs.get("machine", ""), self.device, precision, costs.get("threads", 1))
        self.alone: dict[str, float] = {}  # seconds of a pack by the plan, of one worker that nobody slows down
        self.work = sum(map(self._seconds, plan.packs))
        self.done: set[str] = set()  # packs
        self.timed: set[str] = set()  # packs done, whose times are remembered
        self.times: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)  # seconds taken, and estimated
        self.results: dict[str, dict[str, Any]] = {}
        self.events: deque[tuple[float, str]] = deque(maxlen=KEPT_EVENTS)
        self.told: set[str] = set()  # failures, by file
        self.most = 0  # workers seen at work at once

    def look(self, workers: int | None = None) -> PlanProgress:
        """The plan now; `workers` where the caller knows how many there are, else as many as were seen at work."""
        news: list[tuple[float, str]] = []
        runs = {run_id: self._run(run_id, news) for run_id in self.plan.runs}
        packs = folders(self.plan, self.store)
        begun = set(os.listdir(packs)) if packs.is_dir() else set()
        at_work, todo, left, work, stuck = [], {}, 0, 0.0, False
        for part, state in parts(self.plan, self.store, self.done):
            size = sum(m.tokens for m in part.pack.members)
            folder = packs / part.pack.id if part.pack.id in begun else None
            report = _reported(folder) if folder else None
            rest = max(0, size - report["tokens"]) if report else size
            left += rest
            work += self._seconds(part.pack) * rest / size if size else 0.0
            stuck |= state != "open"
            if folder:
                news += self._failures(part)
            if state != "open":
                continue
            todo[part.pack.id] = (part.pack, rest / size if size else 0.0)
            seen: dict[str, Any] = {"attempts": attempts(folder) if folder else 0}
            held = holder(folder) if folder else None
            if held:
                at_work.append(AtWork(part.pack, held, seen["attempts"], report))
                seen |= {"state": "running", "on": held, "report": report}
            for run_id in _runs_of(part):
                if runs.get(run_id, {}).get("state") == "waiting":
                    runs[run_id] = runs[run_id] | seen
        for segment, record in failures(self.plan, self.store, self.done) if stuck else ():
            if runs.get(segment.run_id or "", {}).get("state") == "waiting":
                why = record["traceback"].strip().splitlines()[-1]
                runs[segment.run_id or ""] = {"state": "failed", "why": why, "log": record.get("log")}
        self._remember()
        self.events.extend(sorted(news))
        self.most = max(self.most, len(at_work))
        seconds = self._left(at_work, todo, workers or self.most) if workers or at_work else None
        share = max(0.0, 1 - work / self.work) if self.work else 1.0
        return PlanProgress(
            plan=self.plan,
            runs=runs,
            tokens=self.total - left,
            total=self.total,
            share=share,
            at_work=at_work,
            seconds_left=seconds,
            events=list(self.events),
        )

    def _run(self, run_id: str, news: list[tuple[float, str]]) -> dict[str, Any]:
        """The state of a run that has a result; else it waits."""
        if run_id in self.results:
            return self.results[run_id]
        if not self.store.has_result(run_id):
            return {"state": "waiting"}
        try:
            result = self.store.result(run_id)
        except RequestError as error:
            return {"state": "failed", "why": str(error), "log": None}
        if result is None:  # it has gone meanwhile
            return {"state": "waiting"}
        state, loss = result["status"], result["final_loss"]
        self.results[run_id] = {"state": state, "loss": loss}
        with suppress(FileNotFoundError):
            at = (self.store.run(run_id) / "result.json").stat().st_mtime
            what = f"{loss:.4f}" if loss is not None else f"at {tokens(result['diverged_at'])}"
            news.append((at, f"{state} {what} {describe(self.plan.runs[run_id])}"))
        return self.results[run_id]

    def _failures(self, part: Part) -> Iterator[tuple[float, str]]:
        """Failures of a part that were not told yet."""
        for path, record in failure_records(folders(self.plan, self.store) / part.pack.id):
            if str(path) not in self.told:
                self.told.add(str(path))
                why = (str(record.get("traceback", "")).strip().splitlines() or ["unknown"])[-1]
                width, members = part.pack.members[0].recipe.model.width, len(part.pack.members)
                with suppress(FileNotFoundError):
                    yield path.stat().st_mtime, f"failed {why} (width {width}, {members} members; {path})"

    def _remember(self) -> None:
        """Times that packs took, next to their estimates; not of those whose members left early."""
        new = [p for p in self.plan.packs if p.id in self.done - self.timed]
        self.timed |= self.done
        for pack in new[-REMEMBERED:]:
            with suppress(RequestError):
                metas = [self.store.meta(s.key) for m in pack.members for s in m.segments]
                if all(meta and meta["status"] == "done" for meta in metas):
                    took = sum(meta["seconds"] for meta in metas if meta)
                    self.times.append((took, self._seconds(pack) * self._sharing))

    def _seconds(self, pack: Pack) -> float:
        """The plan's estimate, or what was measured."""
        if pack.id not in self.alone:
            compiled = cost.compiled(pack, self.plan.train, self.device, self.speeds)
            self.alone[pack.id] = cost.seconds(pack, self.device, self.speeds, compiled)
        return self.alone[pack.id]

    @property
    def _sharing(self) -> float:
        return cost.sharing(self.plan.costs["workers"], self.device)

    def _left(self, at_work: list[AtWork], todo: dict[str, tuple[Pack, float]], workers: int) -> float:
        """Seconds until all is trained: the plan's estimate of what is left, by how it held so far."""
        times = list(self.times)
        for a in at_work:
            if a.report and a.speed:
                tokens = a.report["tokens"] - a.report["begun"]
                times.append((tokens / a.speed, self._seconds(a.pack) * self._sharing * tokens / a.report["total"]))
        took, estimated = (sum(column) + PRIOR_SECONDS for column in zip(*times, (0.0, 0.0)))
        held = {a.pack.id for a in at_work}
        order = sorted(todo.values(), key=lambda item: item[0].id not in held)
        packs, shares = [p for p, _ in order], {p.id: share for p, share in order}
        return cost.elapsed(packs, workers, self.device, shares, self._seconds) * took / estimated


def _runs_of(part: Part) -> Iterator[str]:
    return (s.run_id for m in part.pack.members for s in m.segments if s.run_id)


def _reported(folder: Path) -> dict[str, Any] | None:
    """What the newest attempt at a pack last reported: tokens trained, tokens a second, losses.

    While that is silent the one before it speaks, at no tokens a second.
    """
    for age, attempt in enumerate(sorted(folder.glob("attempt-*"), reverse=True)):
        with suppress(RequestError, OSError, TypeError, KeyError, ValueError):  # none yet, or not whole
            report: Any = read_json(attempt / "progress.json")
            counts = {name: int(report[name]) for name in ("tokens", "begun", "total")}
            return {**report, **counts, "tokens_per_second": 0.0 if age else float(report["tokens_per_second"])}
    return None
