"""How stable training is: sensitivity to the learning rate, and the size at which attention logits become dangerous.

Both are of 2309.14322: runs over learning rates that span decades, at sizes small enough to afford some that diverge.
Numbers of one's own runs in, no training here.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.core.level import checked_level

LEAST_RATES, LEAST_SPAN = 3, 10.0  # rates, and the largest over the smallest: less says nothing of decades
LEAST_GROWTH_SIZES, LEAST_RANGE, LEAST_RUNS = 3, 2.0, 4
DANGER = 1e4  # largest attention logit beyond which the paper's runs diverged; their losses suffered from 1e3 on
REACH = 1000.0  # times the largest size: beyond it no crossing is looked for
BEND = 0.05  # prior SD of the quadratic term, in e-folds of the logit per e-fold of size squared


@dataclass(frozen=True)
class Sensitivity:
    """LR sensitivity: how far above its best loss a method ends, on average over the rates tried, in nats.

    `low` and `high` are a t interval over seeds at `level`, NaN where there is one seed. `each` is by seed.
    """

    value: float
    low: float
    high: float
    level: float
    rates: tuple[float, ...]
    each: dict[Hashable, float]
    best_lr: float
    lost: int  # runs that diverged, or ended above their initial loss


@dataclass(frozen=True)
class Crossing:
    """Where the largest attention logit of a run crosses a line: `params` with its interval; inf: not up to `reach`."""

    params: float
    low: float
    high: float
    level: float
    danger: float
    reach: float


@dataclass(frozen=True)
class LogitGrowth:
    """Largest attention logit against size: log logit = a + b x + c x^2, x = log(params / centre), of one new run."""

    coefficients: tuple[float, float, float]
    covariance: Array  # (3, 3)
    scatter: float  # SD of log logit between runs of a size
    freedom: float
    centre: float
    smallest: float
    largest: float
    level: float

    @property
    def exponent(self) -> float:
        """d log logit / d log params at the centre of the sizes."""
        return self.coefficients[1]

    def predict(self, params: float | Array) -> tuple[Array, Array, Array]:
        """Logit, low and high of one run at each size."""
        from scipy.stats import t as student

        x = np.log(np.asarray(params, dtype=float) / self.centre)
        X = np.stack([np.ones_like(x), x, x**2], -1)
        middle = X @ np.array(self.coefficients)
        sd = np.sqrt(((X @ self.covariance) * X).sum(-1) + self.scatter**2)
        half = float(student.ppf(0.5 + self.level / 2, self.freedom)) * sd
        return np.exp(middle), np.exp(middle - half), np.exp(middle + half)

    def crossing(self, danger: float = DANGER) -> Crossing:
        """The size at which a run's largest attention logit reaches `danger`: where the prediction does, and where the
        upper and the lower end of its interval do.
        """
        reach = REACH * self.largest
        sizes = np.geomspace(self.smallest, reach, 4001)
        first = [
            float(sizes[line >= danger][0]) if (line >= danger).any() else math.inf for line in self.predict(sizes)
        ]
        return Crossing(first[0], first[2], first[1], self.level, danger, reach)


def lr_sensitivity(
    lr: Sequence[float],
    loss: Sequence[float],
    initial: float | Sequence[float],
    seed: Sequence[Hashable] | None = None,
    level: float = 0.9,
) -> Sensitivity:
    """E over rates of min(loss, initial loss) - best loss (2309.14322): each rate tried counts alike.

    Parameters
    ----------
    lr, loss : of each run (n,); a loss that is NaN or infinite is that of a run that diverged, and scores `initial`
    initial : loss before training, of all runs or of each
    seed : of each run; runs of a seed make up one estimate, and the interval is over them. Seeds that lack a rate are
        left out; where every seed lacks one, rates that not all have

    Raises
    ------
    Refusal
        If fewer than three rates, or less than a decade of them, were tried under each of these seeds.
    RequestError
        If a rate is no positive number, or a rate was tried twice under one seed.

    Examples
    --------
    >>> lr_sensitivity([0.001, 0.01, 0.1], [3.0, 2.0, float("nan")], 5.0).value
    1.3333333333333335
    """
    checked_level(level)
    rates, losses = np.asarray(lr, dtype=float), np.asarray(loss, dtype=float)
    start = np.broadcast_to(np.asarray(initial, dtype=float), losses.shape)
    seeds: Sequence[Hashable] = [0] * len(rates) if seed is None else list(seed)
    if not ((rates > 0) & np.isfinite(rates)).all():
        raise RequestError(f"lr={rates[~(rates > 0)][:1].tolist()}: must be above 0")
    fallen = ~(np.isfinite(losses) & (losses < start))
    ended = np.where(fallen, start, losses)
    tried: dict[Hashable, dict[float, float]] = {}
    for s, r, y in zip(seeds, rates.tolist(), ended.tolist()):
        if r in tried.setdefault(s, {}):
            raise RequestError(f"lr={r:g}: tried twice under seed {s}; runs of a group differ in lr and seed only")
        tried[s][r] = y
    every = {r for t in tried.values() for r in t}
    whole = [s for s, t in tried.items() if set(t) == every] or list(tried)
    shared = sorted(r for r in every if all(r in tried[s] for s in whole))
    if len(shared) < LEAST_RATES or shared[-1] < LEAST_SPAN * shared[0] * (1 - 1e-9):
        have = ", ".join(f"{r:g}" for r in shared) or "none"
        raise Refusal(
            f"LR sensitivity needs at least {LEAST_RATES} rates over a decade or more under every seed, there are: "
            f"{have}; add such as lr: [0.001, 0.01, 0.1]"
        )
    table = np.array([[tried[s][r] for r in shared] for s in whole])  # (seeds, rates)
    each = table.mean(1) - table.min(1)
    return Sensitivity(
        *_interval(each, level),
        level,
        tuple(shared),
        dict(zip(whole, each.tolist())),
        shared[int(table.mean(0).argmin())],
        sum(bool(f) and s in whole and r in shared for f, s, r in zip(fallen, seeds, rates.tolist())),
    )


def difference(a: Sensitivity, b: Sensitivity) -> tuple[float, float, float]:
    """a - b with its interval, paired by seed (over the same rates); NaN ends where they share fewer than two seeds.

    Raises
    ------
    Refusal
        If they were tried at different rates, or share no seed.
    """
    if a.rates != b.rates:
        raise Refusal(f"LR sensitivities of different rates cannot be compared: {a.rates} and {b.rates}")
    shared = [s for s in a.each if s in b.each]
    if not shared:
        raise Refusal("LR sensitivities of different seeds are not compared: train both with the same init_seed")
    return _interval(np.array([a.each[s] - b.each[s] for s in shared]), a.level)


def fit_logits(params: Sequence[float], logit: Sequence[float], level: float = 0.9) -> LogitGrowth:
    """Growth of the largest attention logit with size, from runs of one learning rate.

    A quadratic in log size, as the paper fits it; its bend has a prior of 0 ± .05, so that few sizes give a power law
    whose interval knows that it may bend, and many give the paper's fit.

    Parameters
    ----------
    params : size of each run (n,), without embedding and readout
    logit : largest attention logit that each run showed, all at the same tokens

    Raises
    ------
    Refusal
        If there are fewer than three sizes or four runs, or all sizes lie within a factor of two.
    RequestError
        If a size or a logit is no positive number.
    """
    checked_level(level)
    n, y = np.asarray(params, dtype=float), np.asarray(logit, dtype=float)
    for name, values in (("params", n), ("logit", y)):
        if not ((values > 0) & np.isfinite(values)).all():
            raise RequestError(f"{name}={values[~((values > 0) & np.isfinite(values))][0]:g}: must be above 0")
    sizes = np.unique(n)
    if len(sizes) < LEAST_GROWTH_SIZES or sizes[-1] < LEAST_RANGE * sizes[0] or len(n) < LEAST_RUNS:
        have = ", ".join(f"{s:,.0f}" for s in sizes) or "none"
        raise Refusal(
            f"the growth of attention logits needs at least {LEAST_GROWTH_SIZES} sizes, the largest "
            f"{LEAST_RANGE:g} times the smallest or more, and {LEAST_RUNS} runs; there are {len(n)} runs of the sizes "
            f"{have}; add values of model.width, or of init_seed"
        )
    centre = float(np.exp(np.log(sizes).mean()))
    x = np.log(n / centre)
    X = np.stack([np.ones_like(x), x, x**2], 1)
    variance = 1e-4
    for _ in range(20):  # the prior's weight depends on the scatter
        inverse = np.linalg.inv(X.T @ X + np.diag([0, 0, variance / BEND**2]))
        beta = inverse @ X.T @ np.log(y)
        freedom = max(1.0, len(y) - float(np.trace(inverse @ X.T @ X)))
        variance = max(float(((np.log(y) - X @ beta) ** 2).sum()) / freedom, 1e-4)
    a, b, c = beta.tolist()
    ends = float(sizes[0]), float(sizes[-1])
    return LogitGrowth((a, b, c), variance * inverse, math.sqrt(variance), freedom, centre, *ends, level)


def loss_spikes(loss: Sequence[float] | Array, window: int = 100, deviations: float = 7.0) -> Array:
    """Updates at which a spike of the loss begins: above the mean of the `window` updates before by so many of their
    standard deviations (as the spike score of 2501.00656, with a shorter window); what follows within a window is the
    same spike.

    Examples
    --------
    >>> loss = np.where(np.arange(400) == 300, 4.0, 2.0 + 0.1 * (-1.0) ** np.arange(400))
    >>> loss_spikes(loss).tolist()
    [300]
    """
    import pandas as pd

    y = pd.Series(np.asarray(loss, dtype=float))
    before = y.rolling(window)
    high = np.flatnonzero(y > (before.mean() + deviations * before.std(ddof=0)).shift(1))
    return high[np.diff(high, prepend=-window - 1) > window]


def _interval(values: Array, level: float) -> tuple[float, float, float]:
    """Mean with a t interval; NaN ends of a single value."""
    from scipy.stats import t as student

    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, math.nan, math.nan
    half = float(student.ppf(0.5 + level / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half
