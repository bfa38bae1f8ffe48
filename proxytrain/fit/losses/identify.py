"""Which runs a law can use, and whether they identify it: if not, what is missing and which runs would supply it."""

from __future__ import annotations

import numpy as np

from proxytrain.arrays import Array
from proxytrain.fit.losses.laws import Law
from proxytrain.fit.tables.runs import Runs, to_levels

ONCE = 1.05  # epochs up to which a run counts as one that saw no text twice
MOST_LEVELS = 16  # of a law with levels in a number: more is a scatter, not a grid
TOGETHER = 0.07  # scatter of log params and log tokens about one line, below which they are one variable
DENSE = 4  # sizes, and lengths at each of them, that Farseer's law needs
APART = 0.3  # share of a schedule's place in the table that size and length must leave open for its offset
ENOUGH_RUNS = 3  # runs of a schedule for an offset of its own


def levels_of(law: Law, runs: Runs) -> Array:
    """The level (n,) of each run in the law's `per` column."""
    assert law.per
    return runs.labels[law.per] if law.per in runs.labels else to_levels(runs.columns[law.per])


def usable(law: Law, runs: Runs) -> Array:
    """Mask (n,) of the runs that a law can use.

    No repeated tokens unless it knows them; the group asked for, unless it has factors a group; other schedules
    where their offset is identified; at least two sizes (and lengths) at a level.
    """
    keep = np.ones(len(runs), dtype=bool)
    if "unique_tokens" in runs.numbers and not law.repeats:
        keep &= runs.tokens <= ONCE * runs.numbers["unique_tokens"]
    if "group" in runs.asked and law.per != "group":
        keep &= runs.labels["group"] == runs.asked["group"]
    if "schedule" in runs.asked:
        keep &= ~np.isin(runs.labels["schedule"], lonely_schedules(runs, keep))
    if law.per and (law.per in runs.columns):
        level = levels_of(law, runs)
        for value in np.unique(level):
            at = keep & (level == value)
            if any(len(np.unique(to_levels(runs.columns[c][at]))) < 2 for c in law.columns):
                keep[at] = False
    return keep


def lonely_schedules(runs: Runs, keep: Array) -> list[str]:
    """Schedules other than the one asked for whose offset the kept runs do not identify, whatever their losses.

    There are few runs of them, or size and length tell them from the runs of the schedule asked for: then an offset
    and a trend look alike.
    """
    schedule = runs.labels["schedule"]
    own = keep & (schedule == runs.asked["schedule"])
    out = []
    for name in np.unique(schedule[schedule != runs.asked["schedule"]]):
        other = keep & (schedule == name)
        both = own | other
        if own.any() and other.sum() >= ENOUGH_RUNS:
            x = np.c_[np.ones(both.sum()), np.log(runs.params[both]), np.log(runs.tokens[both])]
            place = other[both].astype(float)
            left = place - x @ np.linalg.lstsq(x, place, rcond=None)[0]
            if (left**2).sum() >= APART * ((place - place.mean()) ** 2).sum():
                continue
        out.append(str(name))
    return out


def what_is_missing(law: Law, runs: Runs) -> str | None:
    """Why the law is not identified by these runs, and which runs would help; None if it is."""
    needed = [*(["unique_tokens"] if law.repeats else []), *([law.per] if law.per else []), *law.columns]
    for column in needed:
        known = runs.columns if runs.only is None else {runs.only, *runs.labels}
        if column not in known or (column == "unique_tokens" and column not in runs.numbers):
            return f"{law.name} needs the column {column}"
    runs = runs.take(usable(law, runs))
    missing = _too_few_values(law, runs)
    if missing:
        return missing
    levels = len(np.unique(levels_of(law, runs))) if law.per else 1
    if law.per == "group" and levels < 2:
        return f"{law.name} needs runs of at least two groups; add runs of another group, or fit law=chinchilla"
    if law.per != "group" and levels > MOST_LEVELS:
        return f"{law.name} needs a grid: several sizes at each of a few {law.per}; this table is a scatter"
    if law.bends:
        size, length = to_levels(runs.params), to_levels(runs.tokens)
        dense = sum(len(np.unique(length[size == n])) >= DENSE for n in np.unique(size))
        if dense < DENSE:
            return (
                f"{law.name} needs at least {DENSE} lengths at each of {DENSE} sizes, the table has that at {dense}; "
                f"add runs, or fit law=joined"
            )
    places = [to_levels(runs.params), to_levels(runs.tokens)]
    places += [np.unique(runs.labels[c], return_inverse=True)[1].reshape(-1) for c in runs.asked]
    cells = len(np.unique(np.stack(places), axis=1).T)
    offsets = len(np.unique(runs.labels["schedule"])) - 1 if "schedule" in runs.asked else 0
    free = sum(levels if t.per else 1 for t in law.terms) + len(law.exponents) + offsets
    together = _together(law, runs)
    if together:
        return together
    if cells < free + 1:
        return (
            f"{law.name} has {free} parameters and needs at least {free + 1} different (params, tokens), "
            f"the table has {cells}; add {free + 1 - cells} more{_cells_to_add(law, runs, free + 1 - cells)}"
        )
    return None


def _cells_to_add(law: Law, runs: Runs, count: int) -> str:
    """The cheapest runs that sizes and lengths of the table (and twice the longest) make, and that it does not have."""
    if runs.only or not {"params", "tokens"} <= {*law.columns, law.per}:
        return ""
    n, d = to_levels(runs.params), to_levels(runs.tokens)
    have = set(zip(n.tolist(), d.tolist()))
    lengths = [*np.unique(d).tolist(), 2 * d.max()]
    free = sorted((a * b, a, b) for a in np.unique(n).tolist() for b in lengths if (a, b) not in have)
    return ", for example " + " and ".join(f"params={a:.4g} tokens={b:.4g}" for _, a, b in free[: min(count, 3)])


def _too_few_values(law: Law, runs: Runs) -> str | None:
    for column in law.columns:
        have = np.unique(to_levels(runs.columns[column])) if len(runs) else np.array([])
        if law.per and len(runs):
            level = levels_of(law, runs)
            have = max((np.unique(to_levels(runs.columns[column][level == v])) for v in np.unique(level)), key=len)
        if len(have) < 3:
            where = f" at one value of {law.per}" if law.per else ""
            got = f"only {', '.join(f'{v:.4g}' for v in have)}" if len(have) else "none"
            return (
                f"{law.name} needs at least three values of {column}{where}, the table has {got}; "
                f"add runs at {3 - len(have)} more value{'s' if len(have) < 2 else ''} of {column}"
                + _values_to_add(column, have)
            )
    return None


def _values_to_add(column: str, have: Array) -> str:
    """Up to two values that continue the few there are, by a factor of four or their own."""
    if not len(have):
        return ""
    step = max(2.0, have[-1] / have[0]) if len(have) > 1 else 4.0
    more = [have[-1] * step] if len(have) > 1 else [have[0] / step, have[0] * step]
    return f", for example {' and '.join(f'{column}={v:.3g}' for v in more)}"


def _together(law: Law, runs: Runs) -> str | None:
    """Whether params and tokens are one variable, within the groups of a law with groups."""
    if not {"params", "tokens"} <= set(law.columns):
        return None
    x = np.log(np.c_[runs.params, runs.tokens])
    groups = levels_of(law, runs) if law.per == "group" else np.zeros(len(runs))
    for group in np.unique(groups):
        x[groups == group] -= x[groups == group].mean(0)
    if np.linalg.svd(x, compute_uv=False)[-1] / np.sqrt(len(runs)) >= TOGETHER:
        return None
    smallest = int(runs.compute.argmin())
    n, d = runs.params[smallest], runs.tokens[smallest]
    return (
        f"{law.name} needs params and tokens to vary apart, and here one follows from the other "
        f"({np.median(runs.tokens / runs.params):.3g} tokens per parameter); add runs at another ratio, "
        f"for example params={n:.4g} tokens={4 * d:.4g}, or fit law=power_in_flops along this one"
    )
