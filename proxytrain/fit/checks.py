"""Brings a table to the runs that one law can describe, or refuses. Nothing is dropped in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.identify import lonely_schedules
from proxytrain.fit.laws import Law
from proxytrain.fit.noise import ASSUMED, cell_index, from_repeats
from proxytrain.fit.table import Runs, to_levels

TURN = 0.01  # a loss that rises by more than this (relative) and four seed SDs has turned


def once(runs: Runs) -> tuple[Runs, list[str]]:
    """Each run once: rows that agree in every column are copies, and no repeat under another seed."""
    columns = [*runs.numbers.values(), *runs.labels.values()]
    number = np.stack([np.unique(c, return_inverse=True)[1].reshape(-1) for c in columns])
    first = np.unique(number, axis=1, return_index=True)[1]
    copy = ~np.isin(np.arange(len(runs)), first)
    if not copy.any():
        return runs, []
    rows = ", ".join(map(str, np.sort(runs.row[copy])[:5])) + (", ..." if copy.sum() > 5 else "")
    return runs.take(~copy), [
        f"left out {int(copy.sum())} rows that repeat others in every column (rows {rows}): copies say nothing "
        "about luck; runs under other seeds need a column init_seed or data_seed"
    ]


def asked_for(runs: Runs, schedule: str | None, group: str | None) -> tuple[Runs, list[str]]:
    """Mark the schedule and the group that are to be predicted (default: the most common), and say which they are.

    Nothing is left out here: what each law makes of the others is its own affair, see `identify.usable`.
    """
    asked, said = {}, []
    for column, value in (("schedule", schedule), ("group", group)):
        if column not in runs.labels:
            if value is not None:
                raise RequestError(f"fit.{column}={value!r}: {runs.source} has no column {column}")
            continue
        names, counts = np.unique(runs.labels[column], return_counts=True)
        value = str(names[counts.argmax()] if value is None else value)
        if value not in names:
            raise RequestError(f"fit.{column}={value!r}: {runs.source} has {', '.join(names)}")
        if len(names) > 1:
            asked[column] = value
            more = "; runs of others enter with a fitted offset, unless left out" if column == "schedule" else ""
            count = int((runs.labels[column] == value).sum())
            said.append(f"predicts {column} {value}, which {count} of {len(runs)} runs have{more}")
    return replace(runs, asked=asked), said


def left_out(laws: Sequence[Law], runs: Runs, used: np.ndarray) -> list[str]:
    """Which runs none of the laws can use (the mask is of those that are used), and why."""
    out, gone = [], ~used
    if "group" in runs.asked and (other := gone & (runs.labels["group"] != runs.asked["group"])).any():
        out.append(f"left out {int(other.sum())} runs of other groups, which law=shared_exponents would use")
        gone = gone & ~other
    if "schedule" in runs.asked:
        lonely = gone & np.isin(runs.labels["schedule"], lonely_schedules(runs, used | gone))
        if lonely.any():
            names = np.unique(runs.labels["schedule"][lonely])
            out.append(
                f"left out {int(lonely.sum())} runs of schedule{'s' * (len(names) > 1)} {', '.join(names)}: they are "
                "too few, or so far from the others in size or length, that their offset cannot be told from the trend"
            )
            gone = gone & ~lonely
    if gone.any():
        out.append(
            f"left out {int(gone.sum())} runs that {', '.join(item.name for item in laws)} cannot use (repeated "
            "tokens, or a single size at a length)"
        )
    return out


def best_settings(runs: Runs) -> tuple[Runs, list[str]]:
    """Of several settings at one (params, tokens), such as learning rates: the one with the lowest mean loss.

    Schedules and groups are no settings: each keeps its own best.
    """
    if not {"lr", "batch_tokens"} & set(runs.numbers) and "other" not in runs.labels:
        return runs, []
    setting = cell_index(runs)
    keys = [to_levels(runs.params), to_levels(runs.tokens)]
    keys += [runs.numbers[c] for c in ("unique_tokens",) if c in runs.numbers]
    keys += [np.unique(runs.labels[c], return_inverse=True)[1].reshape(-1) for c in runs.asked]
    place = np.unique(np.stack(keys), axis=1, return_inverse=True)[1].reshape(-1)
    mean = (np.bincount(setting, runs.loss) / np.bincount(setting))[setting]
    best = np.full(place.max() + 1, np.inf)
    np.minimum.at(best, place, mean)
    keep = mean <= best[place]
    if keep.all():
        return runs, []
    return runs.take(keep), [
        f"kept the best setting (learning rate, batch size, other columns) of each "
        f"(params, tokens); left out {int((~keep).sum())} runs"
    ]


def refuse_unfit(runs: Runs) -> None:
    """Refuse losses that do not differ, and losses that rise again with size or length: no law here describes those."""
    repeats = from_repeats(runs)
    luck = repeats.run if repeats else ASSUMED
    y = np.log(runs.loss)
    if len(runs) < 3 or np.ptp(y) < 1e-6:
        raise Refusal(
            f"{runs.source}: {len(runs)} runs with losses from {runs.loss.min():.5g} to {runs.loss.max():.5g}: there "
            "is no trend to fit; add runs of at least three sizes and three lengths"
        )
    allowed = max(TURN, 4 * luck)
    runs, y = runs.take(runs.like_target), y[runs.like_target]
    for column, fixed in ((runs.only, "all"),) if runs.only else (("params", "tokens"), ("tokens", "params")):
        if "unique_tokens" in runs.numbers:
            continue
        along = to_levels(runs.columns[column])
        at = np.ones(len(runs)) if runs.only else to_levels(runs.columns[fixed])
        lines, turned = 0, []
        for value in np.unique(at):
            steps = np.unique(along[at == value])
            if len(steps) < 3:
                continue
            lines += 1
            mean = np.array([y[(at == value) & (along == s)].mean() for s in steps])
            if mean[-1] > mean.min() + allowed:
                turned.append((value, steps[int(mean.argmin())], mean[-1] - mean.min()))
        if turned and 3 * len(turned) > lines:
            value, lowest, rise = turned[-1]
            where = "" if runs.only else f"at {fixed}={value:.4g} "
            raise Refusal(
                f"{runs.source}: {where}the loss rises again by {100 * rise:.1f}% beyond "
                f"{column}={lowest:.4g} (so in {len(turned)} of {lines} lines): the trend turns, and no law here "
                f"describes that; check the largest runs (learning rate, divergence), or train them again"
            )
