"""A worker: takes packs from a frozen plan until none is left. What `sweep` starts here and what a cluster runs."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import signal
import socket
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from proxytrain.config.schema import Launch
from proxytrain.errors import RequestError
from proxytrain.files.atomic import clear
from proxytrain.files.documents import write_document
from proxytrain.launch.machine import check, no_compiler
from proxytrain.launch.machine import name as machine_name
from proxytrain.launch.settle import give_back, settle
from proxytrain.monitor.console import Pace, clock
from proxytrain.monitor.progress import PackReport
from proxytrain.monitor.text import report_line
from proxytrain.plan import cost
from proxytrain.plan.claims import Claim, holder, take
from proxytrain.plan.freeze import Plan
from proxytrain.plan.memory import micro_batches, out_of_memory, relieve
from proxytrain.plan.pack import Pack
from proxytrain.plan.parts import Failure, Part, failures, finished, folders, ready, record_failure, unfinished
from proxytrain.plan.speed import load as load_speeds
from proxytrain.process import say
from proxytrain.store.store import Store

if TYPE_CHECKING:
    from proxytrain.train.members import Rows

CLAIM_SECONDS = 0.5
REPORT_SECONDS = 1.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
# trouble of the store, not of a run: nothing is counted as a failure, and the worker leaves
STORE_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def work(plan: Plan, store: Store, device: str, launch: Launch, stop: Stop) -> int:
    """Train packs until all are done or lost; waits for those that others hold, since they may have to be taken over.

    Returns
    -------
    Exit code: 0 all done; 1 nothing is left but what failed; 130 stopped with work left: by SIGINT, SIGTERM, SIGUSR1,
    SIGHUP or the time limit, the state saved, so that the same command goes on.

    Raises
    ------
    RequestError
        If the store cannot be written to: it is full, or read-only.
    """
    return _Worker(plan, store, device, launch, stop).run()


class _Worker:
    """One worker: its corpus, what it knows of speeds, and what it has seen done."""

    def __init__(self, plan: Plan, store: Store, device: str, launch: Launch, stop: Stop):
        from proxytrain.corpus import load

        check(plan.train, device)
        self.plan, self.store, self.device, self.launch, self.stop = plan, store, device, launch, stop
        precision = next((p.members[0].recipe.precision for p in plan.packs), "float32")
        self.speeds = load_speeds(store, machine_name(device, launch.threads), device, precision, launch.threads)
        self.compiles = plan.train.compile != "off" and no_compiler(device) is None
        settle(launch.threads)
        self.corpus = load(store.corpora(), plan.corpus)
        self.packs = folders(plan, store)
        self.runs = plan.runs if plan.target is None else {**plan.runs, plan.target.id: plan.target}
        self.done: set[str] = set()
        self.programs: set[str] = set()  # shapes of which this worker has one
        self.saved = True

    def run(self) -> int:
        """Train until nothing is left, or `stop`; return the exit code of `work`."""
        while not self.stop() and (left := self._left()):
            try:
                taken = _next(self._in_turn(left), self.packs, self.store, self.launch.stale_seconds)
                if taken is None:
                    time.sleep(CLAIM_SECONDS)
                else:
                    self._attempt(*taken)
            except OSError as error:
                raise RequestError(
                    f"store={self.store.root}: {error.strerror}{f' ({error.filename})' if error.filename else ''}; "
                    "nothing that was saved is lost: once the store can be written to, the same command goes on"
                ) from error
        left = unfinished(self.plan, self.store, self.done)
        if left:
            how = "all saved" if self.saved else "its last updates not saved"
            say(f"stopped by {self.stop.why}, {how}; {len(left)} packs are left, and the same command goes on")
            return 130
        self._clear()
        return int(any(True for _ in failures(self.plan, self.store)))

    def _left(self) -> list[Part]:
        left = unfinished(self.plan, self.store, self.done)
        if not left:
            self.done.clear()  # a state may have been found broken since
            left = unfinished(self.plan, self.store, self.done)
        return left

    def _attempt(self, claim: Claim, part: Part) -> None:
        """Train one part, and put on record how that ended.

        Raises
        ------
        OSError
            Of the store, where nothing is counted as a failure of the part.
        """
        import torch

        from proxytrain.train.loop import Broken, Interrupted, train_pack

        report = _Reporter(claim, part.pack, self.speeds.flops)
        if as_program := self._compiled(part.pack):
            self.programs.add(part.pack.members[0].recipe.shape)
        parts = micro_batches(self.packs / part.pack.id) or self.plan.micro_batches[part.names[-1]]
        with claim.held(self.launch.stale_seconds):
            try:
                train_pack(
                    part.pack,
                    wanted=part.wanted,
                    store=self.store,
                    corpus=self.corpus,
                    runs=self.runs,
                    train=self.plan.train,
                    micro_batches=parts,
                    compiled=as_program,
                    device=torch.device(self.device),
                    folders=[self.packs / name for name in part.names],
                    attempt=claim.attempt,
                    should_stop=lambda: self.stop() or claim.lost.is_set(),
                    report=report,
                )
                _tidy(part, self.plan, self.store)
            except Interrupted as interrupted:
                self.saved = interrupted.saved or claim.lost.is_set()  # another worker has it then
            except Broken as error:
                say(str(error))
                self.done.clear()  # what made it has to make it again
            except Exception as error:
                if isinstance(error, OSError) and error.errno in STORE_TROUBLE:
                    raise
                self._count(error, claim, part, parts)
            finally:
                report.end()
                give_back()

    def _count(self, error: Exception, claim: Claim, part: Part, parts: int) -> None:
        """Put a failure on record, unless another worker has the pack, or the next attempt needs less memory."""
        claim.beat()
        if claim.lost.is_set():
            return
        if not (out_of_memory(error) and _relieved(part, self.packs, parts, self.device, self.launch.threads)):
            _failed(self.packs / part.pack.id, claim)

    def _compiled(self, pack: Pack) -> bool:
        return self.compiles and cost.compiled(pack, self.plan.train, self.device, self.speeds)

    def _in_turn(self, left: list[Part]) -> list[Part]:
        """Return packs that are compiled in less time than they train, or not at all; then short ones; last those of a
        shape that another worker trains, and compiles now, it seems.
        """
        late = [p for p in left if self._compiled(p.pack) and p.pack.members[0].recipe.shape not in self.programs]
        if not late:
            return left
        stale = self.launch.stale_seconds
        held = {p.pack.members[0].recipe.shape for p in left if holder(self.packs / p.pack.id, stale)}
        rank = {}
        for part in late:
            short = cost.seconds(part.pack, self.device, self.speeds, compiled=True) < cost.COMPILE_SECONDS
            rank[part.pack.id] = 2 if part.pack.members[0].recipe.shape in held else int(short)
        return sorted(left, key=lambda part: rank.get(part.pack.id, 0))

    def _clear(self) -> None:
        """Remove temporary files of a plan that is done, and attempts at what others trained meanwhile."""
        members = [m for p in self.plan.packs for m in p.members]
        for folder in {self.store.segment(s.key).parent for m in members for s in m.segments}:
            clear(folder)
        clear(self.store.root / "runs")
        wholes = {p.id: p for p in self.plan.packs}
        for attempt in self.packs.glob("*/attempt-*"):
            pack = wholes.get(attempt.parent.name)
            if pack and finished(pack, self.store) and not holder(attempt.parent, self.launch.stale_seconds):
                shutil.rmtree(attempt, ignore_errors=True)


class Stop:
    """Whether to save and leave: signals, and the time limit. The second SIGINT ends at once."""

    def __init__(self, time_limit: float | None):
        self.why = ""
        self.deadline = time.monotonic() + time_limit if time_limit else float("inf")
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._handle)

    def __call__(self) -> bool:
        if not self.why and time.monotonic() > self.deadline:
            self.why = "the time limit"
        return bool(self.why)

    def _handle(self, number: int, frame: object) -> None:
        if number == signal.SIGINT and self.why == "SIGINT":
            raise KeyboardInterrupt
        self.why = signal.Signals(number).name


def _next(left: list[Part], packs: Path, store: Store, stale_seconds: float) -> tuple[Claim, Part] | None:
    """The first part that can start and that nobody holds."""
    for part in left:
        if not all(ready(key, store) for key in part.pack.needs):
            continue
        if claim := take(store.inside(packs / part.pack.id), stale_seconds):
            if not finished(part.pack, store, part.wanted):
                return claim, part
            claim.release()
            shutil.rmtree(claim.attempt, ignore_errors=True)
    return None


def _tidy(part: Part, plan: Plan, store: Store) -> None:
    """Remove attempts at what is done."""
    whole = next(p for p in plan.packs if p.id == part.names[-1])
    for name in part.names if finished(whole, store) else part.names[:1]:
        for attempt in (folders(plan, store) / name).glob("attempt-*"):
            shutil.rmtree(attempt, ignore_errors=True)


def _relieved(part: Part, packs: Path, parts: int, device: str, threads: int) -> bool:
    """Whether the next attempt at a pack for which memory was short needs less; what it will be is said and kept."""
    step = relieve(part.pack, packs / part.pack.id, parts, device, threads)
    say(f"{part.pack.id}: out of memory with {len(part.pack.members)} members; {step or 'nothing smaller is left'}")
    return step is not None


def _failed(folder: Path, claim: Claim) -> None:
    """Put the exception at hand on record."""
    text = traceback.format_exc()
    failed = Failure(host=socket.gethostname(), pid=os.getpid(), attempt=claim.attempt.name, traceback=text)
    number = record_failure(folder, failed)
    say(f"{folder.name}: failed for the {'first' if number == 1 else 'second'} time\n{text}")


class _Reporter:
    """`progress.json` of an attempt, once a second at most; in the log a line now and then, and when it ends."""

    def __init__(self, claim: Claim, pack: Pack, peak: float):
        self.claim, self.pack, self.peak, self.pace = claim, pack, peak, Pace()
        self.total = sum(m.tokens for m in pack.members)
        self.first, self.last = time.monotonic(), 0.0
        self.begun: int | None = None
        self.done = 0

    def __call__(self, rows: Rows) -> None:
        """Called before the first update, then as training goes on."""
        self.done = self.total - sum(a.member.end - a.position for a in rows.active)
        if self.begun is None:
            self.begun = self.done
            return
        now = time.monotonic()
        if now - self.last < REPORT_SECONDS:
            return
        self.last = now
        content = PackReport(
            tokens=self.done,
            begun=self.begun,
            total=self.total,
            tokens_per_second=(self.done - self.begun) / (now - self.first),
            members=len(rows.active),
            width=self.pack.members[0].recipe.model.width,
            loss=[_finite(float(a.curve["loss"][-1][-1])) for a in rows.active],
            peak_flops=self.peak,
        )
        if self.pace.due():
            say(f"{clock(time.time())} {self.claim.path.parent.name}: {report_line(content)}")
        with contextlib.suppress(OSError):  # for show only
            write_document(self.claim.attempt / "progress.json", content, indent=None)

    def end(self) -> None:
        name = f"{self.claim.path.parent.name}/{self.claim.attempt.name}"
        seconds = time.monotonic() - self.first
        say(f"{name}: tokens {self.begun} to {self.done} of {self.total} in {seconds:.1f} s")


def _finite(loss: float) -> float | None:
    return round(loss, 4) if math.isfinite(loss) else None
