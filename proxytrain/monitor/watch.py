"""How far a plan is, read off the store alone: what workers, of this machine or of any other, published and report.

Time left comes from the plan's cost of what is left, pack by pack, scaled by how the estimate held for what is done;
tokens left over tokens a second would be wrong by the width of the packs that happen to come first.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from proxytrain.errors import RequestError
from proxytrain.files.documents import read_document
from proxytrain.monitor.progress import AtWork, PackReport, PlanProgress, RunState
from proxytrain.monitor.text import describe, tokens
from proxytrain.plan import cost, freeze, speed
from proxytrain.plan.claims import attempts, holder
from proxytrain.plan.freeze import Plan
from proxytrain.plan.pack import Pack
from proxytrain.plan.parts import Part, failure_records, failures, folders, parts
from proxytrain.store.store import Store

PRIOR_SECONDS = 20.0  # of work that went as estimated, until there is more to judge the estimate by
REMEMBERED = 64  # packs done, whose times say how the estimate holds
KEPT_EVENTS = 64  # that are kept


def progress_of(store: Store, name: str) -> PlanProgress:
    """Return how far a sweep is, run by run: done, diverged, failed, running or waiting, and why."""
    return Watch(freeze.load(store.sweep(name) / "plan.json"), store).look()


class Watch:
    """Looks at a plan again and again; what was seen done is not read a second time."""

    def __init__(self, plan: Plan, store: Store):
        self.plan, self.store = plan, store
        self.total = sum(m.tokens for p in plan.packs for m in p.members)
        costs, precision = plan.costs, plan.train.precision
        self.device = costs.device
        self.speeds = speed.load(store, costs.machine, self.device, precision, costs.threads)
        self.alone: dict[str, float] = {}  # seconds of a pack by the plan, of one worker that nobody slows down
        self.work = sum(map(self._seconds, plan.packs))
        self.done: set[str] = set()  # packs
        self.timed: set[str] = set()  # packs done, whose times are remembered
        self.times: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)  # seconds taken, and estimated
        self.results: dict[str, RunState] = {}
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
            rest = max(0, size - report.tokens) if report else size
            left += rest
            work += self._seconds(part.pack) * rest / size if size else 0.0
            stuck |= state != "open"
            if folder:
                news += self._failures(part)
            if state != "open":
                continue
            todo[part.pack.id] = (part.pack, rest / size if size else 0.0)
            tried, held = attempts(folder) if folder else 0, holder(folder) if folder else None
            seen = RunState(state="waiting", attempts=tried)
            if held:
                at_work.append(AtWork(part.pack, held, tried, report))
                seen = RunState(state="running", attempts=tried, on=held, report=report)
            runs |= {run_id: seen for run_id in _runs_of(part) if _waits(runs, run_id)}
        for segment, failed in failures(self.plan, self.store, self.done) if stuck else ():
            if segment.run_id and _waits(runs, segment.run_id):
                runs[segment.run_id] = RunState(state="failed", why=failed.why, log=failed.log)
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

    def _run(self, run_id: str, news: list[tuple[float, str]]) -> RunState:
        """Return the state of a run that has a result; else it waits."""
        if run_id in self.results:
            return self.results[run_id]
        if not self.store.has_result(run_id):
            return RunState(state="waiting")
        try:
            result = self.store.result(run_id)
        except RequestError as error:
            return RunState(state="failed", why=str(error))
        if result is None:  # it has gone meanwhile
            return RunState(state="waiting")
        state, loss = result.status, result.final_loss
        self.results[run_id] = RunState(state=state, loss=loss)
        with suppress(FileNotFoundError):
            at = (self.store.run(run_id) / "result.json").stat().st_mtime
            what = f"{loss:.4f}" if loss is not None else f"at {tokens(result.diverged_at or 0)}"
            news.append((at, f"{state} {what} {describe(self.plan.runs[run_id])}"))
        return self.results[run_id]

    def _failures(self, part: Part) -> Iterator[tuple[float, str]]:
        """Failures of a part that were not told yet."""
        for failed in failure_records(folders(self.plan, self.store) / part.pack.id):
            if failed.log and failed.log not in self.told:
                self.told.add(failed.log)
                width, members = part.pack.members[0].recipe.model.width, len(part.pack.members)
                with suppress(FileNotFoundError):
                    at = Path(failed.log).stat().st_mtime
                    yield at, f"failed {failed.why} (width {width}, {members} members; {failed.log})"

    def _remember(self) -> None:
        """Times that packs took, next to their estimates; not of those whose members left early."""
        new = [p for p in self.plan.packs if p.id in self.done - self.timed]
        self.timed |= self.done
        for pack in new[-REMEMBERED:]:
            with suppress(RequestError):
                metas = [self.store.meta(s.key) for m in pack.members for s in m.segments]
                if all(meta and meta.status == "done" for meta in metas):
                    took = sum(meta.seconds for meta in metas if meta)
                    self.times.append((took, self._seconds(pack) * self._sharing))

    def _seconds(self, pack: Pack) -> float:
        """The plan's estimate, or what was measured."""
        if pack.id not in self.alone:
            compiled = cost.compiled(pack, self.plan.train, self.device, self.speeds)
            self.alone[pack.id] = cost.seconds(pack, self.device, self.speeds, compiled)
        return self.alone[pack.id]

    @property
    def _sharing(self) -> float:
        return cost.sharing(self.plan.costs.workers, self.device)

    def _left(self, at_work: list[AtWork], todo: dict[str, tuple[Pack, float]], workers: int) -> float:
        """Seconds until all is trained: the plan's estimate of what is left, by how it held so far."""
        times = list(self.times)
        for a in at_work:
            if a.report and a.speed:
                tokens = a.report.tokens - a.report.begun
                times.append((tokens / a.speed, self._seconds(a.pack) * self._sharing * tokens / a.report.total))
        took, estimated = (sum(column) + PRIOR_SECONDS for column in zip(*times, (0.0, 0.0)))
        held = {a.pack.id for a in at_work}
        order = sorted(todo.values(), key=lambda item: item[0].id not in held)
        packs, shares = [p for p, _ in order], {p.id: share for p, share in order}
        return cost.elapsed(packs, workers, self.device, shares, self._seconds) * took / estimated


def _runs_of(part: Part) -> Iterator[str]:
    return (s.run_id for m in part.pack.members for s in m.segments if s.run_id)


def _waits(runs: dict[str, RunState], run_id: str) -> bool:
    return run_id in runs and runs[run_id].state == "waiting"


def _reported(folder: Path) -> PackReport | None:
    """Return what the newest attempt at a pack last reported; while that is silent, the one before it, at no speed."""
    for age, attempt in enumerate(sorted(folder.glob("attempt-*"), reverse=True)):
        with suppress(RequestError, OSError):  # none yet, or not whole
            if report := read_document(attempt / "progress.json", PackReport, "it is written again"):
                return replace(report, tokens_per_second=0.0) if age else report
    return None
