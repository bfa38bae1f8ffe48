"""Do groups share their exponents, and is a schedule's offset one number?

The law with a factor a group is nested in that with exponents a group too; the statistic is that of the F test with
Huber's loss in place of squares. Its distribution is taken from refits of samples drawn under the shared exponents, the
residuals of each unit turned over or not at random (a wild bootstrap): luck that the lengths of one trunk share is then
no evidence.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from proxytrain.fit.core.noise import from_repeats, unit_index
from proxytrain.fit.losses.bound import Bound
from proxytrain.fit.losses.estimate import ROUGH, Problem, polish
from proxytrain.fit.losses.identify import usable, what_is_missing
from proxytrain.fit.losses.laws import LAWS
from proxytrain.fit.losses.predictor import Member, run_weights
from proxytrain.fit.tables.runs import Runs

OWN = LAWS["chinchilla"]
SAMPLES = 200


def own_exponents(member: Member, runs: Runs, seed: int) -> dict[str, Any]:
    """Test a fit of `shared_exponents`: {statistic, df, p, own: {group: {alpha, beta}}}, or {missing: why not}."""
    runs = runs.take(usable(member.bound.law, runs))
    groups = [np.flatnonzero(runs.labels["group"] == g) for g in member.bound.levels]
    for name, rows in zip(member.bound.levels, groups):
        missing = what_is_missing(OWN, runs.take(rows).alone())
        if missing:
            return {"missing": f"group {name}: {missing}"}
    bound = member.bound
    weights, scale = run_weights(runs, from_repeats(runs), None)
    delta = member.delta * scale
    x, y = bound.design(runs.columns), np.log(runs.loss)
    shared = Problem(bound.form, x, y, delta, *bound.bounds)
    alone = Bound(OWN, (), bound.centre, bound.scale, bound.offsets)
    fitted = bound.form.value(member.theta, x)
    turn = np.random.default_rng([seed, 77]).choice([-1.0, 1.0], (SAMPLES, unit_index(runs).max() + 1))
    free = len(member.theta)
    luck = (y - fitted) * np.sqrt(len(y) / (len(y) - free))
    targets = np.concatenate([y[None], fitted + luck * turn[:, unit_index(runs)]])
    starts = np.tile(member.theta, (SAMPLES + 1, 1))
    _, together = polish(starts, shared, weights, targets, ROUGH)
    apart, own = np.zeros(SAMPLES + 1), {}
    for number, (name, rows) in enumerate(zip(bound.levels, groups)):
        here = {c: v[rows] for c, v in runs.columns.items()}
        places = [number + k * len(groups) for k in range(len(OWN.terms))]
        places += list(range(len(bound.amplitudes), free))
        problem = Problem(alone.form, alone.design(here), y[rows], delta[rows], *alone.bounds)
        theta, value = polish(starts[:, places], problem, weights[rows], targets[:, rows], ROUGH)
        apart += value
        own[name] = dict(zip(alone.names[3:5], theta[0, 3:5].tolist()))
    more = len(OWN.exponents) * (len(groups) - 1)
    left = len(y) - free - more
    ratio = (together - apart) / more / np.maximum(apart / left, 1e-300)
    p = float((1 + (ratio[1:] >= ratio[0]).sum()) / (SAMPLES + 1))
    return {"statistic": float(ratio[0]), "df": [more, left], "p": p, "own": own}


def drifting_offsets(member: Member, runs: Runs) -> list[str]:
    """Schedules whose offset is no constant: about it, their residuals go with size or length (F test, p < .01)."""
    from scipy.stats import f as fisher

    runs = runs.take(usable(member.bound.law, runs))
    x = np.log(np.c_[runs.params, runs.tokens])
    residual = np.log(runs.loss) - member.bound.form.value(member.theta, member.bound.design(runs.columns))
    out = []
    for schedule in member.bound.offsets:
        here = runs.labels["schedule"] == schedule
        trend = np.c_[np.ones(here.sum()), x[here] - x[here].mean(0)]
        r = residual[here] - residual[here].mean()
        left = r - trend @ np.linalg.lstsq(trend, r, rcond=None)[0]
        spare = len(r) - 3
        if spare > 2 and fisher.sf(((r**2).sum() - (left**2).sum()) / 2 / ((left**2).sum() / spare), 2, spare) < 0.01:
            out.append(
                f"the offset of schedule {schedule} is not one number: it goes with size or length; take its runs out "
                "where the schedule predicted has enough of its own"
            )
    return out


def sentence(test: dict[str, Any]) -> str:
    """One line for people."""
    if "missing" in test:
        return f"shared exponents could not be tested against own ones: {test['missing']}"
    figures = f"F = {test['statistic']:.3g} on {test['df'][0]} and {test['df'][1]}, p = {test['p']:.2g}"
    if test["p"] >= 0.05:
        return f"shared exponents: exponents of their own fit the groups no better than chance would ({figures})"
    own = "; ".join(f"{g}: " + ", ".join(f"{n} {v:.3g}" for n, v in e.items()) for g, e in test["own"].items())
    return f"shared exponents are doubtful: the groups' own fit better than chance would ({figures}; {own})"
