"""Are loss curves of all sizes one, once normalised? A sensitive test of how rate, batch, init and horizon scale.

Models trained to one ratio of tokens to parameters, under one schedule whose rate ends at zero (2507.02119):

    l(x) = (L(x C*) - L0) / (L(C*) - L0),    x the share of training,    L0 of  L(C*) = L0 + a C*^-b  over sizes.

Sizes may spread less than seeds do, "supercollapse": the luck of a run that its whole curve shares goes out with its
own L(C*), so l(1) = 1 for every run, while seeds are compared as they are. A rate that is too high for some sizes only
bends their curves and not those of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.core.noise import ASSUMED
from proxytrain.fit.curves.backtest import SAME_SCHEDULE
from proxytrain.fit.curves.curve import Curve, quieted
from proxytrain.fit.losses.bound import Bound
from proxytrain.fit.losses.estimate import Problem, polish, solve
from proxytrain.fit.losses.laws import LAWS

WINDOW = 0.1  # of training: a curve at x is its mean over (x - WINDOW, x]
EARLY = 0.2  # of training: what comes before is shown and not compared
COLLAPSE_POINTS = 101  # of x in [0, 1]
WINDOW_ROWS = 4  # losses in a window at least
LEAST_SIZES = 3
MOST_TOKENS_RATIO = 1.1  # largest tokens per parameter over the smallest, at most
LEVEL = 0.9  # of the interval of L0
HALVINGS = 12  # of the way from the best L0 to none, and to the lowest loss, in search of its interval
TRIED = 100  # values of L0 in its interval
MOSTLY = 0.9  # share of x at which sizes must spread less than seeds to call it supercollapse
NO_COLLAPSE = 2.0  # times the spread of seeds, from which on there is no collapse


@dataclass(frozen=True, eq=False)
class Collapse:
    """Normalised curves by size, and how they spread against seeds.

    Attributes
    ----------
    x : (m,)
        Shares of training, up to 1.
    curves : params -> (m,)
        l(x) of each size, mean over its seeds.
    across_sizes : (m,)
        SD of l between runs of different sizes, one run of each, over its mean. The mean over seeds is not used for it:
        many seeds must not make sizes look alike.
    across_seeds : (m,), or None
        SD of L(x C*) - L0 between runs of one size, over its mean, pooled over sizes; None where no size has two runs.
    compared : (m,)
        Mask of the x at which the two are compared: after the first fifth and after warm-up, and before the last
        window, where l is close to 1 whatever happens.
    share : float, or None
        Share of the compared x at which sizes spread less than seeds.
    verdict : str
        "supercollapse", "collapse" (sizes spread at most twice as much as seeds), "none", or "" without seeds.
    floor : float
        L0, nats a token: the one at which the curves are closest, of those that the final losses allow.
    floor_fit, floor_low, floor_high : float
        L0 by the final losses alone, with its 90% interval.
    exponent : float
        b of C*, FLOPs by 6 N D, by the final losses alone.
    flops, losses : (n,)
        What L0 rests on: C* and L(C*) of each run.
    tokens_per_param : float
    """

    x: Array
    curves: dict[float, Array]
    across_sizes: Array
    across_seeds: Array | None
    compared: Array
    share: float | None
    verdict: str
    floor: float
    floor_fit: float
    floor_low: float
    floor_high: float
    exponent: float
    flops: Array
    losses: Array
    tokens_per_param: float

    @property
    def typical(self) -> tuple[float, float]:
        """Root mean square of the two spreads over the compared x; NaN for that of seeds where there is none."""
        sizes, seeds = self.across_sizes, self.across_seeds
        found = [float(np.sqrt((v[self.compared] ** 2).mean())) for v in (sizes, seeds) if v is not None]
        return found[0], found[1] if len(found) > 1 else float("nan")

    def summary(self) -> list[str]:
        """Lines for a person: the verdict first, then what L0 rests on."""
        sizes, seeds = self.typical
        low, high = self.x[self.compared][[0, -1]]
        where = f"x from {low:.2f} to {high:.2f}"
        spread = f"normalised curves of {len(self.curves)} sizes differ by {sizes:.2%} (SD, {where})"
        if self.share is None:
            first = f"{spread}; nothing to hold that against: train each size under two seeds (init_seed: [0, 1])"
        else:
            first = (
                f"{_SAYS[self.verdict]}: {spread}, curves of one size under other seeds by {seeds:.2%}; sizes spread "
                f"less at {self.share:.0%} of these x"
            )
        notes = ""
        if min(self.floor - self.floor_low, self.floor_high - self.floor) < 0.02 * (self.floor_high - self.floor_low):
            notes += "; at the edge of that interval, so that curves and final losses hardly agree"
        if self.floor_high - self.floor_low > self.losses.min() - self.floor_fit:
            notes += (
                "; an L0 as little known as that can take up what a wrong rate does: add seeds, or sizes farther apart"
            )
        return [
            first,
            f"L0 {self.floor:.3f} nats, where the curves are closest; final losses alone say {self.floor_fit:.3f} "
            f"({self.floor_low:.3f} to {self.floor_high:.3f}, {LEVEL:.0%}) by L0 + a C^-b with b {self.exponent:.3g}, "
            f"from {len(self.losses)} runs that end at {self.losses.min():.3f} to {self.losses.max():.3f}, C from "
            f"{self.flops.min():.3g} to {self.flops.max():.3g} FLOPs, {self.tokens_per_param:.3g} tokens per parameter"
            f"{notes}",
        ]


_SAYS = {
    "supercollapse": "supercollapse",
    "collapse": "collapse, within twice the spread of seeds, not supercollapse",
    "none": "no collapse",
}


def collapse(curves: Sequence[Curve]) -> Collapse:
    """Normalise loss curves of several sizes, and compare their spread with that of seeds (2507.02119).

    Each curve is averaged over a trailing window that is one share of training for all sizes. Losses are noisy from
    update to update, so that a curve must be smoothed to be read at its end; a window of equal updates would blur small
    models' short runs more than large ones', and bend curves that are one. A window of equal x takes the same linear
    mean of each, so curves that collapse still do, exactly. What runs of one data order share of the luck of single
    batches is taken out before (see `quieted`): they read the same batch at another x.

    Parameters
    ----------
    curves : sequence of Curve
        Whole runs with `params` and `tokens_per_step`, of three sizes or more; runs of a size count as seeds.

    Raises
    ------
    RequestError
        A curve lacks `params` or `tokens_per_step`.
    Refusal
        The curves cannot be compared: too few sizes, unlike tokens per parameter, schedules of other shapes, losses too
        sparse, or final losses that do not fall with size.
    """
    curves = list(curves)
    _refuse_unfit(curves)
    first = WINDOW + max((c.warmup + 1) / c.updates for c in curves)
    x = np.linspace(0, 1, COLLAPSE_POINTS)
    x = x[x >= min(first, 1.0) - 1e-9]
    compared = (x >= EARLY - 1e-9) & (x <= 1 - WINDOW + 1e-9)
    if not compared.any():
        raise Refusal(f"warm-up takes {first - WINDOW:.0%} of the runs: nothing is left to compare; shorten it")
    smooth: dict[float, list[Array]] = {}
    flops, finals = [], []
    for c in sorted(quieted(curves), key=_params):
        smooth.setdefault(_params(c), []).append(_smoothed(c, x))
        flops.append(6 * _params(c) ** 2 * _ratio(c))
        finals.append(smooth[_params(c)][-1][-1])
    runs = {n: np.array(found) for n, found in smooth.items()}  # (seeds, m)
    ends = [float(v[:, -1].mean()) for v in runs.values()]
    if ends[-1] >= ends[0]:
        raise Refusal(
            f"final losses do not fall with size: {ends[0]:.4g} of the smallest, {ends[-1]:.4g} of the largest model; "
            "without a trend there is no L0 (look for runs that diverged, or a rate that is wrong at one end)"
        )
    finds = _floor(np.array(flops), np.array(finals), [len(v) for v in runs.values()])
    if finds.low >= min(finals):
        raise Refusal(
            f"L0 of the final losses, {finds.low:.4g} or more, is not below the lowest of them, {min(finals):.4g}: "
            "they do not follow L0 + a C^-b; add sizes, or seeds where luck is large"
        )
    highest = min(finals) - 0.05 * (min(finals) - finds.low)  # every run must end above L0
    tried = np.linspace(finds.low, min(finds.high, highest), TRIED)
    floor = float(min(tried, key=lambda f: _apart(runs, f, compared)))
    across_sizes, across_seeds = _spreads(runs, floor)
    share, verdict = None, ""
    if across_seeds is not None:
        share = float((across_sizes < across_seeds)[compared].mean())
        ratio = np.sqrt((across_sizes[compared] ** 2).mean() / (across_seeds[compared] ** 2).mean())
        verdict = "supercollapse" if share >= MOSTLY else "collapse" if ratio <= NO_COLLAPSE else "none"
    return Collapse(
        x,
        {n: _normalised(v, floor).mean(0) for n, v in runs.items()},
        across_sizes,
        across_seeds,
        compared,
        share,
        verdict,
        floor,
        finds.best,
        finds.low,
        finds.high,
        finds.exponent,
        np.array(flops),
        np.array(finals),
        float(np.mean([_ratio(c) for c in curves])),
    )


def _refuse_unfit(curves: list[Curve]) -> None:
    for i, c in enumerate(curves):
        if not isinstance(c, Curve):
            raise RequestError(f"curves[{i}]: must be a Curve, not {type(c).__name__}")
        for key in ("params", "tokens_per_step"):
            if getattr(c, key) is None:
                raise RequestError(f"{c.name}: no {key}; a collapse needs it of every curve")
    sizes = sorted({_params(c) for c in curves})
    if len(sizes) < LEAST_SIZES:
        have = ", ".join(f"{n:,.0f}" for n in sizes) or "none"
        raise Refusal(f"a collapse needs at least {LEAST_SIZES} sizes, there are: {have}; add values of model.width")
    low, high = min(curves, key=_ratio), max(curves, key=_ratio)
    if _ratio(high) > MOST_TOKENS_RATIO * _ratio(low):
        raise Refusal(
            f"tokens per parameter: {_ratio(low):.3g} in {low.name}, {_ratio(high):.3g} in {high.name}; only runs of "
            f"one ratio collapse, within {MOST_TOKENS_RATIO - 1:.0%}: give tokens_per_param in place of tokens"
        )
    for c in curves[1:]:
        apart = np.abs(_shape(c) - _shape(curves[0]))
        if apart.max() > SAME_SCHEDULE:
            at = (int(np.argmax(apart)) + 1) / len(apart)
            raise Refusal(
                f"schedules of {curves[0].name} and {c.name} have other shapes: {apart.max():.2f} of the peak rate "
                f"apart at {at:.0%} of training; warm-up and decay must be the same share of every run (warmup counts "
                "tokens: give each size its own)"
            )
    for c in curves:
        within = np.diff(np.searchsorted(c.step / c.updates, np.arange(WINDOW, 1 + 1e-9, WINDOW)))
        if len(within) and within.min() < WINDOW_ROWS:
            raise Refusal(
                f"{c.name}: {int(within.min())} losses within a tenth of the run; a curve needs at least {WINDOW_ROWS} "
                "in each, up to its end"
            )


def _params(c: Curve) -> float:
    assert c.params
    return float(c.params)


def _ratio(c: Curve) -> float:
    """Tokens a parameter."""
    assert c.tokens_per_step
    return c.updates * c.tokens_per_step / _params(c)


def _shape(c: Curve) -> Array:
    """(64,) rates in units of the peak, between updates linear: short runs are compared with long ones."""
    return np.interp(np.arange(1, 65) / 64, np.arange(1, c.updates + 1) / c.updates, c.lr / c.lr.max())


def _smoothed(c: Curve, x: Array) -> Array:
    """(m,) mean of the loss over (x - WINDOW, x] of the run, between rows linear: of a constant that constant."""
    at = np.r_[0.0, c.step / c.updates, 1.0]
    loss = np.r_[c.loss[0], c.loss, c.loss[-1]]
    area = np.r_[0.0, np.cumsum(np.diff(at) * (loss[1:] + loss[:-1]) / 2)]
    return (np.interp(x, at, area) - np.interp(x - WINDOW, at, area)) / WINDOW


def _normalised(runs: Array, floor: float) -> Array:
    """(seeds, m): each run by its own end."""
    return (runs - floor) / (runs[:, -1:] - floor)


def _spreads(runs: dict[float, Array], floor: float) -> tuple[Array, Array | None]:
    """Relative SD (m,) of normalised curves across sizes, and of plain ones across seeds.

    The first is that of one run a size: the variance of the sizes' means, and what the means of S seeds lack of a
    single run's own, (1 - 1/S) of the variance within the size.
    """
    normal = [_normalised(v, floor) for v in runs.values()]
    means = np.array([v.mean(0) for v in normal])
    own = np.mean([v.var(0) for v in normal], axis=0)  # (1 - 1/S) of the unbiased variance
    across_sizes = np.sqrt(means.var(0, ddof=1) + own) / means.mean(0)
    free = sum(len(v) - 1 for v in runs.values())
    if not free:
        return across_sizes, None
    squares = sum((((v - v.mean(0)) / (v.mean(0) - floor)) ** 2).sum(0) for v in runs.values())
    return across_sizes, np.sqrt(squares / free)


def _apart(runs: dict[float, Array], floor: float, compared: Array) -> float:
    """SD across sizes over how far the mean of l lies above 1: unlike the SD itself it does not shrink as L0 falls."""
    across_sizes, _ = _spreads(runs, floor)
    mean = np.mean([_normalised(v, floor).mean(0) for v in runs.values()], axis=0)
    sd, above = (across_sizes * mean)[compared], (mean - 1)[compared]
    return float(np.sqrt((sd**2).sum() / (above**2).sum()))


@dataclass(frozen=True)
class _Floor:
    """L0 by final losses: best, interval, and b."""

    best: float
    low: float
    high: float
    exponent: float


def _floor(flops: Array, loss: Array, seeds: list[int]) -> _Floor:
    """L0 of L0 + a C^-b from final losses (n,) ordered by size, `seeds` of each.

    By the project's estimation (Huber's loss on log residuals, all starts of b), but with no more asked of the table
    than that there are three sizes. The interval is where the objective, with the best a and b at each L0, is no worse
    than the noise that residuals or seeds show, whichever is more: refits scatter far too little where L0 is badly
    known, as their error shrinks with b.
    """
    from scipy.stats import t as student

    law, y = LAWS["power_in_flops"], np.log(loss)
    bound = Bound(law, (), {"flops": float(np.log(flops).mean())}, float(y.mean()))
    groups = np.split(y, np.cumsum(seeds)[:-1])
    free = len(y) - len(groups)
    luck = float(np.sqrt(sum(((g - g.mean()) ** 2).sum() for g in groups) / free)) if free else ASSUMED
    design = bound.design({"params": flops, "flops": flops})
    low, high = bound.bounds
    even, starts = np.ones(len(y)), len(bound.grids[0])
    problem = Problem(bound.form, design, y, 1.345 * max(luck, 1e-4), low, high)
    thetas, values = solve(bound, problem, even, starts, starts)
    theta, least = thetas[int(np.argmin(values))], float(values.min())
    freedom = len(y) - len(theta)
    if freedom:
        luck = max(luck if free else 0.0, float(np.sqrt(2 * least / freedom)))
    allowed = least + 0.5 * (luck * float(student.ppf(0.5 + LEVEL / 2, freedom or free or 30))) ** 2

    def allows(floor: float) -> bool:
        fixed = [np.r_[np.log(floor), bounds[1:]] for bounds in (low, high)]
        _, value = polish(theta[None], replace(problem, low=fixed[0], high=fixed[1]), even)
        return float(value[0]) <= allowed

    def edge(inside: float, outside: float) -> float:
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if allows(middle) else (inside, middle)
        return inside

    best = float(np.exp(theta[0]))
    return _Floor(best, edge(best, 0.0), edge(best, max(best, float(loss.min()))), float(theta[2]))
