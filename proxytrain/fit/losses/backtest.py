"""Hold out the largest runs, predict them from the smaller ones, and remember the errors.

Cuts are by compute (at gaps from 2x to 100x), by size and by length, never at random: an interpolated run says
nothing about extrapolation. The cuts are nested, so the errors of a smaller cut on runs that a larger cut was trained
on are that larger cut's own backtest: every interval and every choice below is made from what its cut has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal
from proxytrain.fit.core.combine import combine
from proxytrain.fit.core.options import FitConfig
from proxytrain.fit.losses.laws import Law
from proxytrain.fit.losses.predictor import HeldOutRun, Member, Predictor, Range, estimate
from proxytrain.fit.tables.runs import Runs, to_levels

GAPS = (2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
LEAST_GAP = 1.4  # a run nearer than this to what was fitted is no extrapolation
BOOTSTRAPS, MOST_REFIT_ROWS = 60, 15_000  # refits of a cut, fewer where they would handle more rows than this
LEAST_BOOTSTRAPS = 20
STARTS, FOLLOWED = 8, 2
DROPPED = 4  # at most so many sizes (or lengths) are held out


@dataclass(frozen=True)
class RunCut:
    """One split: `train` (n,) mask, members fitted on it, and the predictions of each for the runs held out."""

    name: str
    train: Array
    held: Array  # indices of the runs held out
    members: tuple[Member, ...]
    errors: dict[str, Array]  # law -> (held,) log(prediction / truth), NaN where it does not predict


def splits(runs: Runs) -> list[tuple[str, Array]]:
    """Names and training masks (n,), from the smallest training set to the largest."""
    largest = runs.compute[runs.like_target].max()
    out = [(f"compute / {gap:g}", runs.compute <= largest / gap) for gap in GAPS]
    for column in (runs.only,) if runs.only else ("params", "tokens"):
        level = to_levels(runs.columns[column])
        values = np.unique(level[runs.like_target])[::-1]
        out += [
            (f"{column} <= {values[k]:.3g}", level <= values[k]) for k in range(1, min(DROPPED + 1, len(values) - 1))
        ]
    unique: dict[bytes, tuple[str, Array]] = {}
    for name, train in out:
        if 3 <= train.sum() < len(runs):
            unique.setdefault(train.tobytes(), (name, train))
    return sorted(unique.values(), key=lambda cut: int(cut[1].sum()))


def fit_cuts(
    runs: Runs, laws: Sequence[Law], config: FitConfig, seed: int, tell: Callable[[str], None] = lambda what: None
) -> list[RunCut]:
    """Fit every law on every cut that identifies it, and predict what each cut holds out; `tell` hears which."""
    cuts: list[RunCut] = []
    for number, (name, train) in enumerate(splits(runs)):
        fitted = runs.take(train)
        held = np.flatnonzero(~train & runs.like_target & (Range.of(fitted).gap(runs.params, runs.tokens) >= LEAST_GAP))
        if not len(held):
            continue
        members, errors = [], {}
        refits = max(LEAST_BOOTSTRAPS, min(BOOTSTRAPS, MOST_REFIT_ROWS // len(fitted)))
        for law in laws:
            tell(f"{law.name}, backtest on {name}")
            try:
                member = estimate(law, fitted, config, refits, np.random.default_rng([seed, number]), STARTS, FOLLOWED)
            except Refusal:
                continue
            error = member.log_loss(runs.take(held).columns) - np.log(runs.loss[held])
            if np.isfinite(error).any():
                members.append(member)
                errors[law.name] = error
        if members:
            cuts.append(RunCut(name, train, held, tuple(members), errors))
    return cuts


def replay(runs: Runs, cuts: Sequence[RunCut], level: float) -> list[tuple[HeldOutRun, RunCut]]:
    """Predict the runs that each cut holds out, with intervals that use nothing outside the cut's training runs."""
    rows: list[tuple[HeldOutRun, RunCut]] = []
    for cut in cuts:
        predictor = assemble(runs, cut.members, cut.train, cuts, rows)
        held = cut.held[np.any([np.isfinite(e) for e in cut.errors.values()], axis=0)]
        n, d = runs.params[held], runs.tokens[held]
        loss, low, high, spread = predictor.predict(runs.take(held).columns, level)
        gap, reach = predictor.range.gap(n, d), predictor.range.reach(n, d)
        table = zip(runs.row[held], n, d, runs.loss[held], loss, low, high, gap, reach, spread)
        rows += [
            (HeldOutRun(cut.name, predictor.trained_on, int(row), *(float(v) for v in values)), cut)
            for row, *values in table
        ]
    return rows


def assemble(
    runs: Runs,
    members: Sequence[Member],
    train: Array,
    cuts: Sequence[RunCut],
    rows: Sequence[tuple[HeldOutRun, RunCut]],
) -> Predictor:
    """A predictor for members fitted on `train`, from the hold-out errors that `train` contains: nothing else."""
    inside = [c for c in cuts if not (c.train & ~train).any()]
    trained = set(runs.row[train].tolist())
    evidence = tuple(r for r, c in rows if r.row in trained and not (c.train & ~train).any())
    weights = combine([m.bound.law.name for m in members], [(c.errors, c.held, train[c.held]) for c in inside])
    return Predictor(tuple(members), weights, Range.of(runs.take(train)), int(train.sum()), evidence)
