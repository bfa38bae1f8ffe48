"""One loss curve with its learning rates, checked: the door of this room. What passes needs no check further in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import RequestError
from proxytrain.fit.curves.history import History, first_rise

OBSERVATIONS = 100  # observations a curve is reduced to
BATCH_NOISE_WINDOW = 65  # rows of the moving average that a batch's noise is measured from
BURN = 0.1  # share of a curve, by updates, that is not fitted at its start


@dataclass(frozen=True, eq=False)
class Curve:
    """A run's losses under its learning-rate schedule.

    Parameters
    ----------
    lr : (S,)
        Learning rate of each update, 0 or more.
    step : (M,)
        Updates made when each loss was measured, rising, from 0 to S.
    loss : (M,)
        Nats a token: of training, or of validation.
    params : float, optional
        Parameters of the model, counted alike in all curves of a fit; needed to fit several sizes together.
    tokens_per_step : float, optional
        Tokens of an update; curves of a fit must agree where it is given.
    val_step, val_loss : (V,), optional
        Validation losses beside training losses: then the fit predicts validation, through their ratio.
    order : str
        Which order of the text the run read; runs of one order and batch size share the luck of each batch, and the
        fit takes what they share out of their losses. Empty: not known.
    name : str
        Of the run, for messages.

    Raises
    ------
    RequestError
        Names the curve, the row, the value and what is allowed.
    """

    lr: Array
    step: Array
    loss: Array
    params: float | None = None
    tokens_per_step: float | None = None
    val_step: Array | None = None
    val_loss: Array | None = None
    order: str = ""
    name: str = "curve"

    def __post_init__(self) -> None:
        lr = _numbers(self.lr, "lr", self.name)
        if not len(lr) or not (lr >= 0).all() or not lr.max() > 0:
            raise RequestError(f"{self.name}: lr has {_first(lr, lr < 0)}; learning rates are 0 or more, and not all 0")
        if lr.max() > 1e3:
            raise RequestError(f"{self.name}: lr of {lr.max():g} cannot be a learning rate")
        object.__setattr__(self, "lr", lr)
        for steps, losses in (("step", "loss"), ("val_step", "val_loss")):
            if getattr(self, steps) is None and getattr(self, losses) is None and steps == "val_step":
                continue
            step, loss = (_numbers(getattr(self, c), c, self.name) for c in (steps, losses))
            _check_losses(self.name, step, loss, steps, losses, len(lr))
            object.__setattr__(self, steps, step.astype(int))
            object.__setattr__(self, losses, loss)
        for key, low in (("params", 1e3), ("tokens_per_step", 1.0)):
            value = getattr(self, key)
            if value is not None and not (isinstance(value, (int, float, np.number)) and low <= value < 1e16):
                raise RequestError(f"{self.name}: {key}={value!r}; must be a number of at least {low:g}")

    @property
    def updates(self) -> int:
        """S."""
        return len(self.lr)

    @property
    def warmup(self) -> int:
        """Updates until the rate ends its first rise."""
        return first_rise(self.lr / self.lr.max())

    def shape(self) -> Array:
        """(64,) rates in units of the peak at equal shares of the curve: what tells schedules apart."""
        at = np.linspace(0, self.updates - 1, 65)[1:].astype(int)
        return self.lr[at] / self.lr.max()


@dataclass(frozen=True, eq=False)
class Observed:
    """What a fit reads of a curve: block means of the loss, none of which spans a change of the rate.

    `step`, `loss` and `error`, the standard error of log loss that the rows of a block show, are (m,).
    """

    step: Array
    loss: Array
    error: Array

    @classmethod
    def of(cls, curve: Curve, own: int = 0, points: int = OBSERVATIONS) -> Observed:
        """Of a curve's rows after warm-up and after `own` updates."""
        first = max(curve.warmup + 1, BURN * int(curve.step[-1]), own, 1)
        keep = curve.step >= first
        step, loss = curve.step[keep], curve.loss[keep]
        if len(step) <= points:
            return cls(step, loss, np.zeros(len(step)))
        share = curve.lr / curve.lr.max()
        way = np.cumsum(np.abs(np.diff(share, prepend=share[0])))
        block = np.floor((step - step[0]) / (step[-1] + 1 - step[0]) * points)
        block += 1e4 * np.floor(way[step - 1] * 32)
        start = np.flatnonzero(np.r_[True, np.diff(block) != 0])
        count = np.diff(np.r_[start, len(step)])
        mean = np.add.reduceat(step, start) / count
        logs = np.log(loss)
        turns = np.abs(np.diff(logs, 2))  # of three rows in a line: white noise has sqrt(6) of its SD
        noise = float(np.sqrt(np.mean(np.minimum(turns, 4 * np.median(turns)) ** 2) / 6.0))
        return cls(
            np.maximum(mean.round().astype(int), 1), np.add.reduceat(loss, start) / count, noise / np.sqrt(count)
        )

    def history(self, curve: Curve, scale: float) -> History:
        return History.of(curve.lr, self.step, scale)


def quieted(curves: Sequence[Curve]) -> list[Curve]:
    """Curves without the luck of single batches that runs of one order share; alone in its order, a curve is left.

    That luck is the mean, over the runs, of how far a batch's log loss lies from the run's own moving average, and so
    has no slow part: trends stay.
    """
    out = list(curves)
    for key in {(c.order, c.tokens_per_step) for c in curves if c.order}:
        alike = [i for i, c in enumerate(curves) if (c.order, c.tokens_per_step) == key]
        group = [i for i in alike if len(curves[i].step) > 2 * BATCH_NOISE_WINDOW]
        longest = max((int(curves[i].step[-1]) for i in group), default=0)
        total, count = np.zeros(longest + 1), np.zeros(longest + 1)
        for i in group:
            luck = _moves(curves[i].loss)
            total[curves[i].step] += luck
            count[curves[i].step] += 1
        for i in group if len(group) > 1 else []:
            c = curves[i]
            mean = np.where(count[c.step] > 1, total[c.step] / np.maximum(count[c.step], 1), 0.0)
            out[i] = replace(c, loss=c.loss * np.exp(-mean))
    return out


def _moves(loss: Array) -> Array:
    """(M,) log loss less its centred moving average."""
    logs = np.log(loss)
    total = np.r_[0.0, np.cumsum(logs)]
    at = np.arange(len(logs))
    reach = np.minimum(np.minimum(at, len(logs) - 1 - at), BATCH_NOISE_WINDOW // 2)  # symmetric, so a slope is no move
    return logs - (total[at + reach + 1] - total[at - reach]) / (2 * reach + 1)


def own_from(curves: Sequence[Curve]) -> list[int]:
    """Of each curve the update from which its rows are its own: runs of one trunk share what is before."""
    out = [0] * len(curves)
    order = sorted(range(len(curves)), key=lambda i: -curves[i].step[-1])
    for rank, i in enumerate(order):
        for j in order[:rank]:
            a, b = curves[i], curves[j]
            shared, at_a, at_b = np.intersect1d(a.step, b.step, return_indices=True)
            if a.params != b.params or not len(shared):
                continue
            alike = a.loss[at_a] == b.loss[at_b]
            count = len(alike) if alike.all() else int(np.argmin(alike))
            if count > 1:
                out[i] = max(out[i], int(shared[count - 1]) + 1)
    return [min(first, int(c.step[-1])) for first, c in zip(out, curves)]


def _check_losses(name: str, step: Array, loss: Array, steps: str, losses: str, updates: int) -> None:
    if len(step) != len(loss):
        raise RequestError(f"{name}: {len(step)} values of {steps} and {len(loss)} of {losses}; one of each per row")
    if not len(step):
        raise RequestError(f"{name}: no losses")
    if (step != np.floor(step)).any() or step[0] < 0:
        raise RequestError(
            f"{name}: {steps} has {_first(step, (step != np.floor(step)) | (step < 0))}; updates, counted from 0"
        )
    turned = np.flatnonzero(np.diff(step) <= 0)
    if len(turned):
        i = int(turned[0])
        what = "repeated" if step[i] == step[i + 1] else f"followed by {step[i + 1]:g}"
        raise RequestError(f"{name}: {steps} {step[i]:g} in row {i + 1} is {what}; {steps} must rise")
    if step[-1] > updates:
        raise RequestError(f"{name}: {steps} {step[-1]:g}, but lr has {updates} values; one value per update is needed")
    bad = ~((loss > 0) & (loss < 20))
    if bad.any():
        raise RequestError(f"{name}: {losses} has {_first(loss, bad)}; nats per token, above 0 and below 20")


def _numbers(values: Any, key: str, name: str) -> Array:
    try:
        out = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise RequestError(f"{name}: {key} must be numbers") from None
    if out.ndim != 1:
        raise RequestError(f"{name}: {key} has {out.ndim} dimensions; one value per row is needed")
    if not np.isfinite(out).all():
        raise RequestError(f"{name}: {key} has {_first(out, ~np.isfinite(out))}; finite numbers only")
    return out


def _first(values: Array, bad: Array) -> str:
    if not bad.any():
        return "no value above 0"
    i = int(np.argmax(bad))
    return f"{values[i]:g} in row {i + 1}"
