"""Hold out the largest runs, predict them from the smaller ones, and remember the errors.

Cuts are by compute (at gaps 3x, 10x, 30x, 100x), by size and by length, never at random: an interpolated run says
nothing about extrapolation. The cuts are nested, so the errors of a smaller cut on runs that a larger cut was trained
on are that larger cut's own backtest: every interval and every choice below is made from what its cut has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proxytrain.errors import Refusal
from proxytrain.fit.combine import combine
from proxytrain.fit.laws import Law
from proxytrain.fit.options import FitConfig
from proxytrain.fit.predictor import Held, Member, Predictor, Range, estimate
from proxytrain.fit.table import Runs, to_levels

GAPS = (3.0, 10.0, 30.0, 100.0)
LEAST_GAP = 1.4  # a run nearer than this to what was fitted is no extrapolation
BOOTSTRAPS = 100
DROPPED = 4  # at most so many sizes (or lengths) are held out


@dataclass(frozen=True)
class Cut:
    """One split: `train` (n,) mask, members fitted on it, and the predictions of each for the runs held out."""

    name: str
    train: np.ndarray
    held: np.ndarray  # indices of the runs held out
    members: tuple[Member, ...]
    errors: dict[str, np.ndarray]  # law -> (held,) log(prediction / truth), NaN where it does not predict


def splits(runs: Runs) -> list[tuple[str, np.ndarray]]:
    """Names and training masks (n,), from the smallest training set to the largest."""
    out = [(f"compute / {gap:g}", runs.compute <= runs.compute.max() / gap) for gap in GAPS]
    for column in ("params", "tokens"):
        level = to_levels(runs.numbers[column])
        values = np.unique(level)[::-1]
        out += [
            (f"{column} <= {values[k]:.3g}", level <= values[k]) for k in range(1, min(DROPPED + 1, len(values) - 1))
        ]
    unique: dict[bytes, tuple[str, np.ndarray]] = {}
    for name, train in out:
        if 3 <= train.sum() < len(runs):
            unique.setdefault(train.tobytes(), (name, train))
    return sorted(unique.values(), key=lambda cut: int(cut[1].sum()))


def run_backtest(
    runs: Runs, laws: Sequence[Law], config: FitConfig, seed: int
) -> tuple[list[Cut], list[Held], list[Cut]]:
    """Fit every law on every cut that identifies it, then predict what was held out, with intervals.

    Returns
    -------
    cuts; one `Held` for each cut and run, whose interval used nothing outside the cut's training runs; and its cut.
    """
    cuts: list[Cut] = []
    for number, (name, train) in enumerate(splits(runs)):
        fitted = runs.take(train)
        gap = Range.of(fitted).gap(runs.params, runs.tokens)
        held = np.flatnonzero(~train & (gap >= LEAST_GAP))
        if not len(held):
            continue
        members, errors = [], {}
        for law in laws:
            try:
                member = estimate(law, fitted, config, BOOTSTRAPS, np.random.default_rng([seed, number]))
            except Refusal:
                continue
            error = np.full(len(held), np.nan)
            for k, i in enumerate(held):
                try:
                    columns = {c: v[i : i + 1] for c, v in runs.numbers.items()}
                    error[k] = member.log_loss(columns)[0] - np.log(runs.loss[i])
                except Refusal:
                    continue
            if np.isfinite(error).any():
                members.append(member)
                errors[law.name] = error
        if members:
            cuts.append(Cut(name, train, held, tuple(members), errors))
    rows: list[Held] = []
    origin: list[Cut] = []
    for cut in cuts:
        predictor = assemble(runs, cut.members, cut.train, cuts, rows, origin)
        for k, i in enumerate(cut.held):
            if not any(np.isfinite(e[k]) for e in cut.errors.values()):
                continue
            n, d = runs.params[i : i + 1], runs.tokens[i : i + 1]
            loss, low, high = (float(v[0]) for v in predictor.predict(n, d, config.level))
            rows.append(
                Held(
                    cut.name,
                    int(cut.train.sum()),
                    int(runs.row[i]),
                    float(n[0]),
                    float(d[0]),
                    float(runs.loss[i]),
                    loss,
                    low,
                    high,
                    float(predictor.range.gap(n, d)[0]),
                    float(predictor.range.reach(n, d)[0]),
                )
            )
            origin.append(cut)
    return cuts, rows, origin


def assemble(
    runs: Runs,
    members: Sequence[Member],
    train: np.ndarray,
    cuts: Sequence[Cut],
    rows: Sequence[Held],
    origin: Sequence[Cut],
) -> Predictor:
    """A predictor for members fitted on `train`, from the hold-out errors that `train` contains: nothing else."""
    inner = [c for c in cuts if not (c.train & ~train).any()]
    trained = set(runs.row[train].tolist())
    legal = tuple(r for r, c in zip(rows, origin) if r.row in trained and not (c.train & ~train).any())
    weights = combine([m.bound.law.name for m in members], [(c.errors, c.held, train[c.held]) for c in inner])
    return Predictor(tuple(members), weights, Range.of(runs.take(train)), legal)
