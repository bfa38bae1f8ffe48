"""The best runs of a table: at each value of one variable, and along compute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from proxytrain.arrays import Array
from proxytrain.fit.losses.identify import usable
from proxytrain.fit.losses.laws import Law
from proxytrain.fit.tables.runs import Runs, cell_index, to_levels

WINDOWS = 60  # of a curve


def one_variable(law: Law, runs: Runs) -> tuple[Runs, list[str]]:
    """The table as a law in one variable sees it: the best runs at each value, seeds and all, and nothing else of them.

    Schedules and groups each have their own best. Along flops the best are the lower convex hull of log loss over log
    flops (arXiv 2010.14701).
    """
    column = law.single
    assert column
    if runs.only:
        return runs, []
    used = runs.take(usable(law, runs))
    keep = np.zeros(len(used), dtype=bool)
    sets = np.array(["\0".join(row) for row in zip(*(used.labels[c] for c in used.asked))] or [""] * len(used))
    for name in np.unique(sets):
        here = np.flatnonzero(sets == name)
        keep[here] = _best(used.take(here), column)
    best = used.take(keep)
    numbers = {c: v for c, v in best.numbers.items() if c != "unique_tokens"}
    numbers["params"] = best.params if column == "params" else best.compute / 6 if column == "flops" else best.params**0
    numbers["tokens"] = best.tokens if column == "tokens" else best.tokens**0
    said = (
        [f"kept the {len(best)} of {len(runs)} runs that are best at their {column}"] if len(best) < len(runs) else []
    )
    return replace(best, numbers=numbers, only=column), said


def _best(runs: Runs, column: str) -> Array:
    """Mask (n,) of the runs in the cells that are best at their value of the column, by mean loss."""
    cell = cell_index(runs)
    first = np.unique(cell, return_index=True)[1]
    x = np.log(to_levels(runs.columns[column])[first])
    y = np.log(np.bincount(cell, runs.loss) / np.bincount(cell))
    order = np.lexsort((y, x))
    lowest = order[np.r_[True, np.diff(x[order]) > 0]]
    if column == "flops":
        lowest = lowest[lower_hull(x[lowest], y[lowest])]
    return np.isin(cell, lowest)


def lower_hull(x: Array, y: Array) -> Array:
    """Positions of the falling part of the lower convex hull of points with ascending x."""
    hull: list[int] = []
    for i in np.flatnonzero(np.r_[True, y[1:] < np.minimum.accumulate(y)[:-1]]).tolist():  # no other is on it
        while len(hull) > 1 and _above(hull[-2], hull[-1], i, x, y):
            hull.pop()
        hull.append(i)
    kept = np.array(hull)
    return kept[: int(y[kept].argmin()) + 1]


def falling_means(step: Array, loss: Array) -> tuple[Array, Array]:
    """A noisy curve as log steps and losses that fall: means over windows of equal log steps that are new lows."""
    keep = np.asarray(step) > 0
    order = np.argsort(np.asarray(step)[keep], kind="stable")
    s, y = np.log(np.asarray(step, dtype=float)[keep][order]), np.asarray(loss, dtype=float)[keep][order]
    if not len(s):
        return s, y
    window = np.floor((s - s[0]) / max(s[-1] - s[0], 1e-9) * WINDOWS * 0.999999).astype(int)
    count = np.bincount(window)
    some = count > 0
    steps, means = (np.bincount(window, v)[some] / count[some] for v in (s, y))
    low = np.minimum.accumulate(means)
    falls = np.r_[True, np.diff(low) < 0]
    return steps[falls], low[falls]


def _above(a: int, b: int, c: int, x: Array, y: Array) -> bool:
    """Whether point b lies on or above the line from a to c."""
    return bool((y[b] - y[a]) * (x[c] - x[a]) >= (y[c] - y[a]) * (x[b] - x[a]))
