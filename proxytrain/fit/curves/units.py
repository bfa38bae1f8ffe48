"""What the numbers of a curve's file count: steps that are tokens or calls, rates and losses that cannot be meant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import RequestError
from proxytrain.fit.curves.columns import as_typed

LEAST_BATCH = 64  # tokens per update: steps that are multiples of fewer may well be updates
MOST_CURVE_UPDATES = 1e8
MANY_UPDATES = 1e6  # beyond this, steps with a large common divisor may be tokens
WORST = 12.5  # nats per token of a guess among 260,000 tokens: after warm-up a loss is lower
FILLED = 0.5  # share of rows that repeat the loss before them
STUCK = 0.2  # share of rows of one value that is no filling
FEW_TOKENS = 0.003  # per parameter


def updates_of_tokens(tokens: Array, per_step: float | None, source: object) -> Array:
    """Return updates made (M,) for tokens seen (M,).

    Raises
    ------
    RequestError
        The tokens of an update are not known, or tokens are no multiples of them.
    """
    if not per_step:
        raise RequestError(
            f"{source}: the rows count tokens, and tokens_per_step is not known. Give it as a column of index.csv."
        )
    updates = tokens / per_step
    off = np.abs(updates - np.round(updates)) > 0.01
    if off.any():
        i = int(np.argmax(off))
        raise RequestError(
            f"{source}: {tokens[i]:.12g} tokens in row {i + 1} are no multiple of tokens_per_step={per_step:g}. "
            "Check tokens_per_step in index.csv."
        )
    return np.asarray(np.round(updates))


def refuse_other_counts(step: Array, lr: Array, about: dict[str, float], column: str, source: object) -> None:
    """Refuse steps that may count something other than updates; naming the column in `fit.columns` answers it.

    Raises
    ------
    RequestError
        Steps may be epochs, tokens, or calls of which several make an update.
    """
    as_updates, as_tokens = as_typed({"step": column}), as_typed({"tokens": column})
    broken = step != np.floor(step)
    if broken.any():
        i = int(np.argmax(broken))
        raise RequestError(
            f"{source}: step {step[i]:g} in row {i + 1} is no whole number; updates are counted from 0. "
            "Epochs must be multiplied by the updates of an epoch."
        )
    last = float(step[-1])
    if last > MOST_CURVE_UPDATES or (last > MANY_UPDATES and shared_divisor(step) >= LEAST_BATCH):
        raise RequestError(
            f"{source}: step {last:.12g} in the last row; updates, from 1 to 1e8, or tokens? "
            f"Give {as_tokens} for tokens, or {as_updates} for updates."
        )
    per_step = about.get("tokens_per_step")
    if per_step and per_step >= LEAST_BATCH and len(step) > 1 and shared_divisor(step) % per_step == 0:
        raise RequestError(
            f"{source}: all steps are multiples of tokens_per_step={per_step:g}: tokens or updates? "
            f"Give {as_tokens} for tokens, or {as_updates} for updates."
        )
    calls = calls_per_update(step, lr)
    if calls > 1:
        raise RequestError(
            f"{source}: lr changes at every step {calls} only: are {calls} calls one update? "
            f"Then divide step by {calls}. If steps are updates, give {as_updates}."
        )


def are_tokens(step: Array, per_step: float | None) -> bool:
    """Return whether steps must be tokens: multiples of an update's tokens, and too many to be updates."""
    if per_step is None or per_step < LEAST_BATCH or step[-1] <= MANY_UPDATES:
        return False
    return len(step) > 1 and shared_divisor(step) % per_step == 0


def shared_divisor(step: Array) -> int:
    """Return the greatest common divisor of whole steps; 1 where some are not whole."""
    if (step != np.floor(step)).any() or step[-1] > 1e18 or not (step > 0).any():
        return 1
    return int(np.gcd.reduce(step[step > 0].astype(np.int64)))


def calls_per_update(step: Array, lr: Array) -> int:
    """Return after how many rows the rate changes, always alike; 1 where it changes irregularly.

    Rounded rates repeat too, but then each change is one unit of rounding: changes of several sizes at one distance
    come from a schedule that moves once in so many calls.
    """
    every = np.diff(step) == 1
    if len(step) < 64 or not every.all():
        return 1
    change = np.diff(lr)
    at = np.flatnonzero(change)
    if len(at) < 16:
        return 1
    distance, counts = np.unique(np.diff(at), return_counts=True)
    usual = int(distance[counts.argmax()])
    size = np.abs(change[at])
    varied = np.quantile(size, 0.9) > 1.5 * np.quantile(size, 0.1)
    return usual if 1 < usual <= 1024 and counts.max() > 0.9 * counts.sum() and varied else 1


def without_last_zero(rates: Array) -> tuple[Array, bool]:
    """Return rates with a lone 0 at the end of a constant rate put right, and whether there was one.

    Loggers that ask the scheduler once more after the last update write it.
    """
    if len(rates) < 4 or rates[-1] != 0 or rates[-2] <= 0 or not (rates[-4:-1] == rates[-2]).all():
        return rates, False
    return np.r_[rates[:-1], rates[-2]], True


def refuse_other_losses(step: Array, loss: Array, column: str, source: object) -> None:
    """Refuse values that are no losses in nats per token: perplexities, accuracies, zeros.

    Raises
    ------
    RequestError
        The likely unit is named.
    """
    bad = ~(loss > 0)
    if bad.any():
        i = int(np.argmax(bad))
        every = "every row" if bad.all() else f"row {i + 1}"
        raise RequestError(
            f"{source}: {column} has {loss[i]:g} in {every}; nats per token, above 0 and below 20. "
            "Check that it is the loss, before any log."
        )
    if len(loss) >= 10 and np.ptp(loss) == 0:
        raise RequestError(f"{source}: {column} is {loss[0]:g} in every row. Check that it is the loss.")
    move = np.diff(loss)
    if len(loss) >= 30 and (move == 0).mean() > FILLED and not (move > 0).any():
        raise RequestError(
            f"{source}: {column} never rises and mostly stays equal: the lowest so far? Give the loss of each row."
        )
    late = loss[step >= step[-1] / 2]
    if np.median(late) > WORST:
        high = int(np.argmax(loss > WORST))
        raise RequestError(
            f"{source}: {column} has {loss[high]:g} in row {high + 1}; nats per token, above 0 and below 20. "
            "Perplexities need their natural logarithm; sums must be divided by tokens."
        )
    third = max(len(loss) // 3, 1)
    if len(loss) >= 10 and loss.max() <= 1 and np.median(loss[-third:]) > np.median(loss[:third]):
        raise RequestError(
            f"{source}: {column} rises from {np.median(loss[:third]):.3g} to {np.median(loss[-third:]):.3g} and stays "
            "below 1: an accuracy? Give the loss in nats per token."
        )


def without_filled(loss: Array, known: Array) -> tuple[Array, int]:
    """Return which rows have a loss of their own, and how many repeat the one before; few equal ones are chance."""
    at = np.flatnonzero(known)
    again = np.r_[False, np.diff(loss[at]) == 0]
    longest = np.diff(np.flatnonzero(np.r_[~again, True])).max(initial=0)
    if len(at) < 30 or again.mean() <= FILLED or longest > STUCK * len(at):
        return known, 0
    own = known.copy()
    own[at[again]] = False
    return own, int(again.sum())


def notes_on_scale(peaks: Sequence[float], tokens_per_param: Sequence[float]) -> list[str]:
    """Return notes on runs that are far too short for their size.

    Raises
    ------
    RequestError
        Peak rates of the runs differ so much that some must be in another unit.
    """
    if max(peaks) > 300 * min(peaks):
        raise RequestError(
            f"lr: peaks from {min(peaks):.3g} to {max(peaks):.3g} in one fit: some are in units of the peak or in "
            "percent. Give all in one unit."
        )
    if tokens_per_param and max(tokens_per_param) < FEW_TOKENS:
        return [
            f"at most {max(tokens_per_param):.2g} tokens per parameter: check that step counts updates (not epochs), "
            "and the units of params and tokens_per_step"
        ]
    return []
