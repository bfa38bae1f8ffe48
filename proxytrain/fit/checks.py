"""Brings a table to the runs that one law can describe, or refuses. Nothing is dropped in silence."""

from __future__ import annotations

import numpy as np

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.noise import ASSUMED, cell_index, from_repeats
from proxytrain.fit.table import Runs, to_levels

TURN = 0.01  # a loss that rises by more than this (relative) and four seed SDs has turned


def one_schedule(runs: Runs, schedule: str | None) -> tuple[Runs, list[str]]:
    """The runs of the asked schedule (default: the most common), and what was left out."""
    if "schedule" not in runs.labels:
        if schedule is not None:
            raise RequestError(f"fit.schedule={schedule!r}: {runs.source} has no column schedule")
        return runs, []
    names, counts = np.unique(runs.labels["schedule"], return_counts=True)
    if schedule is None:
        schedule = str(names[counts.argmax()])
    if schedule not in names:
        raise RequestError(f"fit.schedule={schedule!r}: {runs.source} has {', '.join(names)}")
    keep = runs.labels["schedule"] == schedule
    if keep.all():
        return runs, []
    return runs.take(keep), [
        f"fitted on the {int(keep.sum())} runs of schedule {schedule}; left out {int((~keep).sum())} of others"
    ]


def best_settings(runs: Runs) -> tuple[Runs, list[str]]:
    """Of several settings at one (params, tokens), such as learning rates: the one with the lowest mean loss."""
    if not {"lr", "batch_tokens"} & set(runs.numbers) and "other" not in runs.labels:
        return runs, []
    setting = cell_index(runs)
    place = np.unique(np.c_[to_levels(runs.params), to_levels(runs.tokens)], axis=0, return_inverse=True)[1].reshape(-1)
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
    for column, fixed in (("params", "tokens"), ("tokens", "params")):
        if "unique_tokens" in runs.numbers:
            continue
        along, at = to_levels(runs.numbers[column]), to_levels(runs.numbers[fixed])
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
            raise Refusal(
                f"{runs.source}: at {fixed}={value:.4g} the loss rises again by {100 * rise:.1f}% beyond "
                f"{column}={lowest:.4g} (so in {len(turned)} of {lines} lines): the trend turns, and no law here "
                f"describes that; check the largest runs (learning rate, divergence), or train them again"
            )
