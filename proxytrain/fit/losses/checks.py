"""Brings a table to the runs that one law can describe, or refuses. Nothing is dropped in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.core.noise import ASSUMED, from_repeats
from proxytrain.fit.losses.identify import lonely_schedules
from proxytrain.fit.losses.laws import Law
from proxytrain.fit.tables.runs import Runs, cell_index, to_levels

OFF_NEIGHBOURS = 0.15  # log loss that a run lies off its neighbours, and how many robust SDs of all runs, to be named
OFF_NEIGHBOURS_SD = 8.0
OFF_ANY_SURFACE = 0.4  # log loss that the corner of a steep surface does not reach
TURN = 0.01  # a loss that rises by more than this (relative) and four seed SDs has turned


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


def left_out(laws: Sequence[Law], runs: Runs, used: Array) -> list[str]:
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
    if not {"lr", "batch_tokens"} & set(runs.numbers) and not runs.settings:
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
    kept = "; ".join(_kept(runs, keep, place))
    return runs.take(keep), [
        f"kept the best setting at each (params, tokens): {kept}; left out {int((~keep).sum())} of {len(runs)} runs"
    ]


def _kept(runs: Runs, keep: Array, place: Array) -> Iterator[str]:
    """By name: the values of each setting that were kept most often, and how many there were."""
    for name in (*(c for c in ("lr", "batch_tokens") if c in runs.numbers), *runs.settings):
        values = runs.numbers[name] if name in runs.numbers else runs.settings[name]
        text = np.array([f"{v:.4g}" for v in values]) if name in runs.numbers else values
        varied = [p for p in np.unique(place) if len(np.unique(text[place == p])) > 1]
        if not varied:
            continue
        chosen = Counter(str(text[keep & (place == p)][0]) for p in varied)
        listed = ", ".join(f"{v} at {k}" for v, k in chosen.most_common(3)) + (", ..." if len(chosen) > 3 else "")
        yield f"{name} (of {len(np.unique(text))} values): {listed} of {len(varied)}"


def set_apart(runs: Runs, outliers: str | None) -> tuple[Runs, list[str]]:
    """Name runs whose loss lies far off that of their neighbours in size and length: diverged ones, with a finite loss.

    What is expected of a run is a quadratic in log params and log tokens, fitted robustly to the runs of its group.

    Parameters
    ----------
    outliers : "drop" leaves them out, "keep" fits them; None refuses.

    Raises
    ------
    Refusal
        Names rows and factors.
    """
    expected = np.log(runs.loss)  # of those that cannot be judged
    groups = runs.labels.get("group", np.zeros(len(runs)))
    for group in np.unique(groups):
        inside = groups == group
        smooth = _smooth(runs.take(inside))
        expected[inside] = expected[inside] if smooth is None else smooth
    off = np.log(runs.loss) - expected
    scale = 1.4826 * float(np.median(np.abs(off)))
    far = np.flatnonzero(np.abs(off) > max(OFF_NEIGHBOURS, OFF_NEIGHBOURS_SD * scale))
    far = np.array([i for i in far if abs(off[i]) > OFF_ANY_SURFACE or _contradicted(runs, i, off[i] > 0)], dtype=int)
    if not len(far):
        return runs, []
    far = far[np.argsort(-np.abs(off[far]))]
    listed = ", ".join(
        f"row {runs.row[i]} ({runs.loss[i]:.4g}, {np.exp(off[i]):.3g} times {np.exp(expected[i]):.4g})" for i in far[:6]
    ) + (f" and {len(far) - 6} more" if len(far) > 6 else "")
    found = f"{len(far)} of {len(runs)} losses lie far off their neighbours: {listed}"
    if outliers is None:
        raise Refusal(
            f"{runs.source}: {found}. Diverged, or another unit? fit.outliers=drop leaves them out, fit.outliers=keep "
            "fits them."
        )
    if outliers == "keep":
        return runs, [f"{found}; fitted, as fit.outliers says"]
    return runs.take(np.setdiff1d(np.arange(len(runs)), far)), [f"{found}; left out, as fit.outliers says"]


def _contradicted(runs: Runs, i: int, high: bool) -> bool:
    """Whether a run is worse than one that is no larger and no longer, or (not `high`) better than one that is no
    smaller and no shorter: the corner of a steep surface is neither.
    """
    n, d, loss, clearly = runs.params, runs.tokens, runs.loss, np.exp(OFF_NEIGHBOURS / 3)
    if high:
        return bool((loss[(n <= n[i]) & (d <= d[i])] < loss[i] / clearly).any())
    return bool((loss[(n >= n[i]) & (d >= d[i])] > loss[i] * clearly).any())


def _smooth(runs: Runs) -> Array | None:
    """Log losses (n,) of a smooth surface through most runs; None where there are too few, or text is repeated."""
    if "unique_tokens" in runs.numbers:
        return None
    x: list[Array] = [np.ones(len(runs))]
    axes: list[Array] = [np.log(v) for v in (runs.params, runs.tokens)]
    axes = [(a - a.mean()) / a.std() for a in axes if a.std() > 1e-6]
    x += axes + [a**2 for a in axes if len(np.unique(np.round(a, 3))) > 3]
    x += [axes[0] * axes[1]] if len(axes) == 2 else []
    if "schedule" in runs.labels:
        x += [(runs.labels["schedule"] == v).astype(float) for v in np.unique(runs.labels["schedule"])[1:]]
    design, y = np.stack(x, axis=1), np.log(runs.loss)
    if len(runs) < 2 * design.shape[1]:
        return None
    weight = np.ones(len(runs))
    for turn in range(50):  # Huber's weights, then Tukey's, which give outliers none
        root = np.sqrt(weight)[:, None]
        fitted = design @ np.linalg.lstsq(design * root, y * root[:, 0], rcond=1e-9)[0]
        off = np.abs(y - fitted)
        scale = max(1.4826 * float(np.median(off)), OFF_NEIGHBOURS / 8)
        huber = np.minimum(1.0, 1.5 * scale / np.maximum(off, 1e-12))
        weight = huber if turn < 25 else np.clip(1 - (off / (6 * scale)) ** 2, 0, 1) ** 2
    return fitted


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
