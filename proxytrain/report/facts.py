"""What the page says, collected once: runs with their curves, the fit, the prediction, the truth, the costs, and all
that is missing or was refused. Reads the store; writes nothing except a fit that was missing or stale.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from proxytrain.analysis.collapse import Collapse
from proxytrain.analysis.stability import LogitGrowth
from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit import Fit, Prediction
from proxytrain.monitor.progress import RunState
from proxytrain.monitor.watch import progress_of
from proxytrain.plan import freeze
from proxytrain.plan.freeze import Costs
from proxytrain.report.collapse import collapsed
from proxytrain.report.course import Course, course
from proxytrain.report.rates import Rates, rates
from proxytrain.report.row import Row, row_of
from proxytrain.report.stability import Stability, foresee, stability
from proxytrain.report.standing import Standing, standing
from proxytrain.store.store import Store
from proxytrain.sweep import main as sweep
from proxytrain.sweep import results as outcomes
from proxytrain.sweep.request import Request

POINTS = 40_000  # of all curves together, so that a page of 500 runs stays light
RATIO = 1.02  # neighbouring points of a thinned curve lie at least so far apart in tokens
WINDOW = 0.05  # half-width of the running mean, in log tokens


@dataclass(frozen=True)
class Line:
    """A curve thinned for drawing."""

    row: Row
    tokens: Array  # (n,)
    loss: Array  # (n,) training loss, a running mean
    eval_tokens: Array  # (m,)
    eval_loss: Array  # (m,)
    start: float = 0.0  # tokens; what comes before is shared with a longer run that is drawn


@dataclass(frozen=True)
class FigureFacts:
    """What the figures of the answer read: runs, their fit, and the target."""

    rows: list[Row]
    lines: list[Line]
    target: Row | None
    fit: Fit | None
    prediction: Prediction | None
    used: list[Row]  # the runs that were fitted, in the order of `fit.runs`
    truths: list[Row]  # the target's runs that were trained, one a seed
    course: Course | None = None
    truth_lines: list[Line] = field(default_factory=list)
    rates: Rates | None = None

    @property
    def done(self) -> list[Row]:
        return [r for r in self.rows if r.status == "done"]

    @property
    def came(self) -> list[float]:
        """Final losses of the target's runs that did not diverge."""
        return [r.final for r in self.truths if r.loss is not None]

    @property
    def schedule(self) -> str:
        """The schedule that the fit and the main figures are about."""
        if self.fit and self.fit.data.schedule:
            return self.fit.data.schedule
        if self.target:
            return self.target.schedule
        names = [r.schedule for r in self.rows]
        return max(dict.fromkeys(names), key=names.count)

    @property
    def counted(self) -> str:
        """What N counts, after the word "parameters"."""
        return ", as the table counts them"

    @property
    def total(self) -> bool:
        """Whether N counts the embedding and the readout too."""
        return False


@dataclass(frozen=True, kw_only=True)
class Facts(FigureFacts):
    """All that the page of a sweep and its figures read."""

    asked: Request
    costs: Costs
    seconds: float  # of one worker, all segments of the sweep
    missing: list[tuple[str, str]] = field(default_factory=list)  # what, why
    caveats: list[str] = field(default_factory=list)  # what no law speaks of
    stability: Stability | None = None  # where rates span decades
    standing: Standing | None = None
    logits: LogitGrowth | None = None  # largest attention logits of runs like the target
    collapse: Collapse | None = None  # where sizes were trained to one ratio of tokens to parameters

    @property
    def counted(self) -> str:
        return "" if self.total else " without embedding and readout"

    @property
    def total(self) -> bool:
        return dict(self.asked.config.fit.columns or {}).get("params") == "params_total"


def collect(asked: Request) -> Facts:
    """Read the store, fit where no fresh fit lies there, and note what is missing."""
    missing: list[tuple[str, str]] = []
    states = _states(asked)
    varied = outcomes.varied_keys(asked.records)
    listed = [row_of(record, asked.store, states.get(record.id), varied) for record in asked.records]
    rows = sorted(listed, key=lambda r: (r.schedule, r.params, r.tokens, r.lr, r.init_seed, r.data_seed))
    missing += _unfinished(rows)
    fitted, prediction = None, None
    try:
        fitted = sweep.fit(asked)
        if asked.target:
            prediction = sweep.predict(asked, fitted)
    except (Refusal, RequestError) as error:
        what = "prediction" if fitted else "fit" if asked.target else "law of the loss"  # nothing asked for it
        missing.insert(0, (what, str(error)))
    used = _used(asked, rows, fitted)
    if fitted:
        left = [r for r in rows if r.status == "done" and r not in used]
        if left:
            missing.append((f"{len(left)} of {len(rows)} runs", f"not fitted: {_names(left)}; the notes above say why"))
    order, unranked = standing(asked, rows)
    missing += unranked
    goals = [row_of(run.record, asked.store, None, varied) for run in asked.targets]
    truths = [r for r in goals if r.status in ("done", "diverged")]
    return Facts(
        asked=asked,
        rows=rows,
        lines=_lines(asked.store, rows, missing),
        target=goals[0] if goals else None,
        fit=fitted,
        prediction=prediction,
        used=used,
        truths=truths,
        course=_course(asked, missing) if prediction else None,
        rates=_rates(asked, rows, fitted, missing),
        truth_lines=_lines(asked.store, truths, missing),
        costs=_costs(asked),
        seconds=_seconds(asked.store, rows),
        missing=missing,
        caveats=outcomes.caveats(asked),
        stability=stability(listed, asked.store, asked.corpus.manifest.vocab_size, missing),
        standing=order,
        logits=foresee(listed, goals[0], asked.store) if goals else None,
        collapse=collapsed(asked.records, asked.store),
    )


def _states(asked: Request) -> dict[str, RunState]:
    """State of the runs that have no result, where a plan says it."""
    if not (asked.folder / "plan.json").exists():
        return {}
    return progress_of(asked.store, asked.name).runs


def _unfinished(rows: list[Row]) -> list[tuple[str, str]]:
    out = []
    for row in rows:
        if row.status == "diverged":
            at = f" after {row.diverged_at:,} tokens" if row.diverged_at is not None else ""
            out.append((f"run {row.id}", f"diverged{at}: width {row.width}, lr {row.lr:g}; the fit leaves it out"))
        elif row.status == "failed":
            out.append((f"run {row.id}", f"failed: {row.why} (`proxytrain retry` clears it, `sweep` goes on)"))
    for status, text in (("running", "being trained"), ("waiting", "not trained yet")):
        left = [r for r in rows if r.status == status]
        if left:
            out.append((f"{len(left)} of {len(rows)} runs", f"{text}: {_names(left)}"))
    return out


def _names(rows: list[Row]) -> str:
    return ", ".join(r.id[:8] for r in rows[:8]) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")


def _used(asked: Request, rows: list[Row], fitted: Fit | None) -> list[Row]:
    if fitted is None:
        return []
    order = outcomes.table(asked.store, asked.records)["run"]
    by_id = {r.id: r for r in rows}
    return [by_id[order[int(number) - 1]] for number in fitted.runs["row"]]


def _course(asked: Request, missing: list[tuple[str, str]]) -> Course | None:
    try:
        return course(asked)
    except (Refusal, RequestError, OSError, ValueError, KeyError) as error:
        missing.append(("curve of the target", str(error)))
        return None


def _rates(asked: Request, rows: list[Row], fitted: Fit | None, missing: list[tuple[str, str]]) -> Rates | None:
    found, why = rates(rows, asked.target_record, fitted)
    if why:
        missing.append(("law of the learning rate", why))
    return found


def _costs(asked: Request) -> Costs:
    """Costs of the whole sweep: of the plan on disk where it is of this request."""
    path = asked.folder / "plan.json"
    if path.exists():
        made = freeze.load(path)
        if made.request == asked.digest:
            return made.costs
    made = freeze.make(
        asked.name,
        asked.runs,
        asked.target,
        store=asked.store,
        train=asked.config.train,
        workers=1,
        device="cpu",
        memory=asked.config.train.memory or 1 << 62,
    )
    return made.costs


def _seconds(store: Store, rows: Iterable[Row]) -> float:
    """Seconds that one worker would have spent, every segment once."""
    seen: set[tuple[str, int]] = set()
    total = 0.0
    for row in rows:
        result = store.result(row.id)
        key = result.key if result else None
        while key and key not in seen:
            seen.add(key)
            meta = store.meta(key)
            total += meta.seconds if meta else 0.0
            key = meta.parent if meta else None
    return total


def _lines(store: Store, rows: list[Row], missing: list[tuple[str, str]]) -> list[Line]:
    """Curves of all runs that have one; of runs of a recipe and schedule that begin alike, the longest has it."""
    finished = [r for r in rows if r.status in ("done", "diverged")]
    most = max(40, min(400, POINTS // max(1, len(finished))))
    drawn: dict[tuple[str, str], list[tuple[Array, Array]]] = {}
    out = []
    for row in sorted(finished, key=lambda r: -r.tokens):
        try:
            curve = store.curve(row.id)
        except (RequestError, OSError, ValueError, KeyError) as error:
            missing.append((f"curve of run {row.id}", f"cannot be read: {error}"))
            continue
        if not len(curve.tokens):
            continue
        result = store.result(row.id)
        others = drawn.setdefault((result.recipe_id if result else "", row.schedule), [])
        shared = max((_alike(curve, *other) for other in others), default=0)
        others.append((curve.loss, curve.lr))
        tokens, loss = thin(curve.tokens, curve.loss, most)
        start = float(curve.tokens[shared - 1]) if shared else 0.0
        out.append(Line(row, tokens, loss, curve.eval_tokens, curve.eval_loss, start))
    return out


def _alike(curve: Any, loss: Array, lr: Array) -> int:
    """Number of first updates that two curves have in common."""
    n = min(len(curve.loss), len(loss))
    if n == 0 or curve.loss[0] != loss[0]:
        return 0
    differ = (curve.loss[:n] != loss[:n]) | (curve.lr[:n] != lr[:n])
    return int(np.argmax(differ)) if differ.any() else n


def thin(tokens: Array, loss: Array, most: int) -> tuple[Array, Array]:
    """At most `most` points, evenly in log tokens, of a running mean whose window grows with the tokens.

    Examples
    --------
    >>> x, y = thin(np.arange(1, 10_001), np.ones(10_000), 100)
    >>> len(x) <= 100, float(x[-1]), float(y.min())
    (True, 10000.0, 1.0)
    """
    last = float(tokens[-1])
    span = np.log(last / float(tokens[0]))
    grid = last * np.exp(-np.arange(0.0, span + 1e-9, max(np.log(RATIO), span / (most - 1) or 1.0)))[::-1]
    at = tokens[np.unique(np.minimum(np.searchsorted(tokens, grid * (1 - 1e-12)), len(tokens) - 1))].astype(float)
    a = np.searchsorted(tokens, at * np.exp(-WINDOW), side="left")
    b = np.searchsorted(tokens, at * np.exp(WINDOW), side="right")
    total = np.r_[0.0, np.cumsum(loss, dtype=float)]
    return at, (total[b] - total[a]) / (b - a)
