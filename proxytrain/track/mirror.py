"""The mirror: follows a sweep in the store and brings W&B to where the store is. It reads the store and writes beside.

    sweeps/NAME/wandb.json    what was sent, where to, under which id
    sweeps/NAME/wandb/        offline runs, whole, for `wandb sync`; the claim of the one mirror that is at work
    sweeps/NAME/mirror.log    what a mirror beside the workers had to say

It may be killed at any moment and started at any later time: what a server has is asked from the server, run by run,
and what is ended and confirmed is remembered here, so that it is not asked for again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from msgspec import field, to_builtins

from proxytrain.config.recipe import digest
from proxytrain.config.schema import Wandb
from proxytrain.errors import RequestError
from proxytrain.files.atomic import remove
from proxytrain.files.documents import Document, read_document, write_document
from proxytrain.plan import freeze
from proxytrain.plan.claims import Claim, Holder, holder, take
from proxytrain.plan.freeze import Plan
from proxytrain.store.store import Store
from proxytrain.track.client import REQUESTS, Client, resolved
from proxytrain.track.shown import MirroredRun, rows, shown

LOOK_SECONDS = 10.0
MINUTE = 60.0
SHARE = 0.003  # of the machine's cores, while runs may be training there; wandb's process takes half as much again
LIVE_SECONDS = 60.0  # a run that trains is sent so often at most
VISITS = 20  # before the store is looked at again
TRIES = 3  # in a row that may fail once nothing more is to come
WAIT_SECONDS = (2.0, 300.0)  # after a failure, doubled with each; the most
LAST_SECONDS = 4.0  # the most once nothing more is to come


class Sent(Document, frozen=True, kw_only=True):
    """What was sent of one run, of the summary, or of the view."""

    id: str = ""  # in W&B
    ended: str | None = field(default=None, name="as")  # how the run had ended; a digest of the summary
    url: str | None = None  # of the view


class Mirror:
    """One sweep's mirror.

    Parameters
    ----------
    say : takes its lines
    stop : set to make it leave after the visit at hand
    over : set when nothing more is to come: all that is there is sent, then it leaves
    follow : it sets `over` itself once all runs have ended
    """

    def __init__(
        self,
        store: Store,
        name: str,
        track: Wandb,
        online: bool,
        say: Callable[[str], None],
        *,
        stop: threading.Event | None = None,
        over: threading.Event | None = None,
        follow: bool = False,
    ):
        self.store, self.name, self.track, self.online, self.say = store, name, resolved(track), online, say
        self.stop, self.over, self.follow = stop or threading.Event(), over or threading.Event(), follow
        self.folder = store.sweep(name)
        self.pieces = self.folder / "wandb"
        self._visited: dict[str, tuple[float, int]] = {}  # when a run that trains was sent, and how far it was
        self._trouble: dict[str, int] = {}  # how often a run could not be sent
        self._broken: set[str] = set()  # runs whose files cannot be read
        self._turns: list[float] = []  # when the visits of the last minute began
        self._spent = 0.0  # processor seconds before the last of them

    def run(self) -> int:
        """Follow until `over` and all is sent (0), or nothing can be sent (1), or `stop` (130)."""
        with self._claimed() as claim:
            if claim is None:
                return 130 if self.stop.is_set() else 0
            client = Client(self.track, self.online, claim.attempt, self.pieces)
            failed, tries = "", 0
            while not self.stop.is_set() and not claim.lost.is_set():
                last = self.over.is_set()
                try:
                    sent = self._round(client, last)
                    failed, tries = "", 0
                except Exception as error:  # whatever happens to a network, a server, a disk
                    failed, tries = " ".join(str(error).split())[:300] or repr(error), tries + 1
                    self.say(f"not sent: {failed}")
                    if last and tries >= TRIES:
                        break
                    wait = min(WAIT_SECONDS[0] * 2**tries, WAIT_SECONDS[1])
                    self.stop.wait(min(wait, LAST_SECONDS)) if last else self._idle(wait)
                    continue
                if not sent and last:
                    break
                if not sent:
                    self._idle(LOOK_SECONDS)
            client.close()
        return 130 if self.stop.is_set() else int(bool(failed or self._broken))

    def news(self, last: bool = True) -> tuple[Plan, list[MirroredRun]]:
        """What has not been sent yet: runs that ended and runs that train, taking turns."""
        made = freeze.load(self.folder / "plan.json")
        sent = self._sent()
        ended: list[MirroredRun] = []
        live: list[MirroredRun] = []
        runs = shown(self.store, made)
        if self.follow and sum(bool(r.ended) for r in runs if r.job == "run") == len(made.runs):
            self.over.set()
        for run in runs:
            if run.id in self._broken:
                continue
            if run.ended:
                if sent.get(run.id, Sent()).ended != run.ended:
                    ended.append(run)
            elif self.online:
                when, position = self._visited.get(run.id, (float("-inf"), 0))
                again = not last and time.monotonic() - when > LIVE_SECONDS
                if run.position > position and (again or run.id not in self._visited):
                    live.append(run)
        mixed = [r for r in chain(*zip_longest(live, ended)) if r]
        return made, sorted(mixed, key=lambda r: self._trouble.get(r.id, 0))

    def waits(self) -> bool:
        """Whether there is anything to send, or will be: runs that have not ended."""
        if not (self.folder / "plan.json").exists():
            return False
        made = freeze.load(self.folder / "plan.json")
        ended = sum(bool(r.ended) for r in shown(self.store, made) if r.job == "run")
        return ended < len(made.runs) or self.behind() > 0

    def behind(self) -> int:
        """How many runs, with the summary, are not sent; only what has ended counts."""
        if not (self.folder / "plan.json").exists():
            return 0
        made, news = self.news()
        return sum(bool(r.ended) for r in news) + (self._conclusion(made) is not None)

    def _round(self, client: Client, last: bool) -> int:
        """Send what is new, or some of it; how many runs."""
        made, news = self.news(last)
        count = 0
        for run in news[:VISITS]:
            try:
                curve = rows(self.store, run)
            except Exception as error:
                if run.ended in ("done", "diverged"):  # else its files went on meanwhile
                    self._broken.add(run.id)
                    self.say(f"{run.id}: {error}")
                continue
            self._wait_turn()
            if self.stop.is_set():
                return count
            try:
                self._send(client, run, curve)
            except Exception:
                self._trouble[run.id] = self._trouble.get(run.id, 0) + 1
                raise
            count += 1
        if not count and last and (what := self._conclusion(made)):
            self._wait_turn()
            self._conclude(client, made, what)
            count += 1
        return count

    def _send(self, client: Client, run: MirroredRun, curve: list[tuple[int, dict[str, float]]]) -> None:
        sent = self._sent()
        id = client.send(
            sent.get(run.id, Sent()).id or run.id,
            curve,
            ended={None: None, "done": 0}.get(run.ended, 1),
            summary=run.summary,
            name=run.name,
            group=self.name,
            job_type=run.job,
            tags=run.tags,
            config=run.config,
        )
        self._visited[run.id] = (time.monotonic(), run.position)
        self._remember(run.id, Sent(id=id, ended=run.ended))
        self.say(f"{run.id}: {run.ended or 'so far'}, {run.position} tokens, {len(curve)} rows")

    def _conclusion(self, made: Plan) -> str | None:
        """A digest of what the summary says; None where that is what was sent, or there is nothing to sum up."""
        if len(made.runs) < 2:
            return None
        files = [self.folder / name for name in ("fit.json", "predictions.csv")]
        say = [[r.id, r.ended] for r in sorted(shown(self.store, made), key=lambda r: r.id) if r.ended]
        pictures = sorted(p.name for p in self.folder.glob("figures/*.png"))
        what = digest([say, pictures, [p.read_text() for p in files if p.exists()]])
        return None if self._sent().get("sweep", Sent()).ended == what else what

    def _conclude(self, client: Client, made: Plan, what: str) -> None:
        runs = [r for r in shown(self.store, made) if r.ended]
        id = client.conclude(
            self._sent().get("sweep", Sent()).id or f"sweep-{self.name}",
            _table(runs),
            _summary(self.folder, made, runs),
            [self.store.inside(p) for p in sorted(self.folder.glob("figures/*.png"))],
            self.store.inside(self.folder / "fit.json"),
            name=self.name,
            group=self.name,
            job_type="sweep",
            tags=["sweep"],
            config={
                "sweep": self.name,
                "corpus": made.corpus,
                "runs": len(made.runs),
                "target": to_builtins(made.target),
            },
        )
        self._remember("sweep", Sent(id=id, ended=what))
        self.say(f"summary of {len(runs)} runs")

    @contextmanager
    def _claimed(self) -> Iterator[Claim | None]:
        """The claim to be the only one; None where another has it until `over`."""
        self.store.inside(self.pieces).mkdir(parents=True, exist_ok=True)
        claim = take(self.pieces)
        while claim is None and not self.stop.is_set():
            last = self.over.is_set()
            claim = take(self.pieces)
            if claim is None and last:
                who = holder(self.pieces) or Holder()
                self.say(f"another mirror is at work ({who.host} pid {who.pid})")
                break
            if claim is None:
                self._idle(LOOK_SECONDS)
        if claim is None:
            yield None
            return
        for old in self.pieces.glob("attempt-*"):  # of mirrors that were killed
            if old != claim.attempt:
                remove(old)
        try:
            with claim.held():
                yield claim
        finally:
            remove(claim.attempt)

    def _wait_turn(self) -> None:
        """Keep the rate that the server accepts (in no minute more visits than have so many requests), and, while runs
        are still to come, the share of this machine that is the mirror's."""
        most = self.track.requests_per_minute / REQUESTS
        many = max(1, int(most))
        if self.online and len(self._turns) >= many:
            self.stop.wait(max(0.0, self._turns[-many] + MINUTE * many / most - time.monotonic()))
        if self._turns:
            spent = time.process_time() - self._spent
            self._idle(self._turns[-1] + spent / (SHARE * len(os.sched_getaffinity(0))) - time.monotonic())
        self._turns, self._spent = [*self._turns[-many:], time.monotonic()], time.process_time()

    def _idle(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.stop.is_set() and not self.over.is_set():
            self.stop.wait(0.2)

    @property
    def _place(self) -> str:
        server = os.environ.get("WANDB_BASE_URL", "W&B")
        return f"{server}/{self.track.entity or 'default'}/{self.track.project}" if self.online else "offline"

    def _sent(self) -> dict[str, Sent]:
        """What was sent to this place, by run id; offline, to any: `wandb sync` would append it there once more."""
        places = memory(self.folder)
        if self.online:
            return places.get(self._place, {})
        return {key: what for sent in places.values() for key, what in sent.items()}

    def _remember(self, key: str, what: Sent) -> None:
        places = memory(self.folder)
        places[self._place] = {**places.get(self._place, {}), key: what}
        write_document(self.folder / "wandb.json", places)


def memory(folder: Path) -> dict[str, dict[str, Sent]]:
    """Return what `wandb.json` of a sweep remembers: place -> run id, `sweep` or `view` -> what was sent there."""
    with suppress(RequestError):  # the server knows too
        return read_document(folder / "wandb.json", dict[str, dict[str, Sent]], "it is written again") or {}
    return {}


def _table(runs: list[MirroredRun]) -> dict[str, list[Any]]:
    """The runs of a sweep as columns."""
    lines = []
    for run in runs:
        record, result = run.record, run.result
        lines.append(
            {
                "run": run.id,
                "name": run.name,
                "job": run.job,
                "status": run.ended,
                "params": record.params.non_embedding,
                "params_total": record.params.total,
                "tokens": record.tokens,
                "flops": record.flops,
                "schedule": record.schedule,
                "lr": record.config.lr,
                "loss": result and result.final_loss,
                "loss_se": result and result.val_se,
                "bits_per_byte": result and result.bits_per_byte,
                "seconds": result and result.seconds,
                **{k: v for k, v in run.labels.items() if k not in ("tokens", "schedule", "lr")},
            }
        )
    return {key: [line.get(key) for line in lines] for key in (lines[0] if lines else {"run": None})}


def _summary(folder: Path, made: Plan, runs: list[MirroredRun]) -> dict[str, Any]:
    """Counts, the fit's parameters, the prediction with its interval, and the truth where it is known."""
    counts: dict[str, int] = {}
    for run in runs:
        if run.job == "run":
            counts[run.ended or ""] = counts.get(run.ended or "", 0) + 1
    content: dict[str, Any] = {"count": {**counts, "planned": len(made.runs)}, "costs": to_builtins(made.costs)}
    fit = read_document(folder / "fit.json", dict[str, Any], "fit again")
    if fit:
        content["fit"] = {k: fit.get(k) for k in ("law", "main_law", "params", "stderr", "warnings", "data")}
    if made.target and (folder / "predictions.csv").exists():
        import csv

        with open(folder / "predictions.csv", newline="") as file:
            for row in csv.DictReader(file):
                if row["run"] == made.target.id:
                    numbers = {k: float(row[k]) for k in ("loss", "low", "high", "level", "gap")}
                    content["prediction"] = {**numbers, "params": float(row["params"]), "note": row["note"]}
    truth = [r.result.final_loss for r in runs if r.job == "target" and r.result and r.result.final_loss is not None]
    if truth:
        content["truth"] = {"loss": sum(truth) / len(truth), "runs": len(truth)}
    return content
