"""Laws estimated on one set of runs, and what they say about a new run: a centre and an interval for one new loss.

The interval holds four kinds of ignorance: where the parameters are (bootstrap), the luck of the new run (seed noise),
which law is right (spread of the laws combined), and what extrapolation did to this very procedure before: it is never
narrower than the errors that the backtest saw at a comparable gap, grown with the log-gap beyond it. What lies farther
than the backtest ever reached may hold a bend or a jump that no run has shown, so it widens with every e-fold of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from proxytrain.arrays import Array
from proxytrain.fit.core.bootstrap import samples
from proxytrain.fit.core.holdout import calibration
from proxytrain.fit.core.noise import ASSUMED, Noise, estimate_noise, from_repeats, measured
from proxytrain.fit.core.options import FitConfig
from proxytrain.fit.losses.bound import Bound, bind
from proxytrain.fit.losses.estimate import REFIT, ROUGH, Problem, objective, polish, solve
from proxytrain.fit.losses.identify import usable
from proxytrain.fit.losses.laws import Law
from proxytrain.fit.tables.runs import Runs

# Constants of the interval, chosen on simulated tables (`scripts/choose_laws.py`); UNSEEN on real ones too.
PRIOR_ERROR = 0.006  # error of an extrapolated log loss for each e-fold of gap; counts until the backtest speaks
UNSEEN = 0.012  # the same for each e-fold beyond what the backtest reached; counts always; see FINDINGS.md
OWN_CUTS = 2.0  # cuts that the spread as it is counts for, where held-out errors scale it
TIGHTEST, WIDEST = 0.7, 2.0  # how far they may scale it
PATH_POINTS = 8  # points of the way to a new run at which a law must not rise
SAME_OBJECTIVE = 1e-6  # starts that end within this relative distance of the best objective have reached it


@dataclass(frozen=True)
class Member:
    """One law, estimated: theta (p,) internal parameters, draws (B, p) of the bootstrap."""

    bound: Bound
    theta: Array
    draws: Array
    objective: float
    delta: float
    convergence: float  # share of the starts that reached the best objective
    noise: Noise

    def log_loss(self, columns: Mapping[str, Array]) -> Array:
        """(n,); NaN where the law has nothing to say: off its levels, or where its loss rises on the way."""
        return self._where_sound(columns, self.theta)

    def log_loss_draws(self, columns: Mapping[str, Array]) -> Array:
        """(B, n) of the bootstrap refits; NaN where `log_loss` is."""
        return self._where_sound(columns, self.draws)

    def _where_sound(self, columns: Mapping[str, Array], theta: Array) -> Array:
        bound, form = self.bound, self.bound.form
        known = np.flatnonzero(bound.covers(columns))
        out = np.full((*theta.shape[:-1], len(columns["params"])), np.nan)
        if not len(known):
            return out
        here = {c: v[known] for c, v in columns.items()}
        value = form.value(self.theta, bound.design(here))
        sound = np.isfinite(value)
        for column in ("params", "tokens"):
            if column != bound.law.per and column in bound.centre:
                sound &= self._falls(column, here)
        out[..., known] = form.value(theta, bound.design(here))
        out[..., known[~sound]] = np.nan
        return out

    def _falls(self, column: str, columns: Mapping[str, Array]) -> Array:
        """Mask (n,): the fitted loss is finite and falls all the way from the middle of the runs to a little beyond."""
        ends = np.sort(
            [np.full(len(columns[column]), self.bound.centre[column]), np.log(columns[column]) + 0.01], axis=0
        )
        path = np.exp(ends[0] + np.linspace(0.0, 1.0, PATH_POINTS)[:, None] * (ends[1] - ends[0]))  # (PATH_POINTS, n)
        along = {c: np.tile(v, PATH_POINTS) for c, v in columns.items()} | {column: path.ravel()}
        loss = self.bound.form.value(self.theta, self.bound.design(along)).reshape(path.shape)
        return np.all(np.isfinite(loss), axis=0) & np.all(np.diff(loss, axis=0) <= 1e-9, axis=0)


@dataclass(frozen=True)
class HeldOutRun:
    """One run, predicted without it. `error` is log(prediction / measured loss); `reach` is the log-gap."""

    cut: str
    trained_on: int
    row: int  # in the table, counted from 1
    params: float
    tokens: float
    loss: float
    prediction: float
    low: float
    high: float
    gap: float
    reach: float
    spread: float  # standard deviation of log loss that the interval was made from

    @property
    def error(self) -> float:
        return float(np.log(self.prediction / self.loss))


@dataclass(frozen=True)
class Range:
    """The largest size, length and compute (6 N D) that were fitted."""

    params: float
    tokens: float
    compute: float

    @classmethod
    def of(cls, runs: Runs) -> Range:
        return cls(float(runs.params.max()), float(runs.tokens.max()), float(runs.compute.max()))

    def gap(self, params: Array, tokens: Array) -> Array:
        """Compute of a new run over that of the largest run fitted."""
        return 6.0 * params * tokens / self.compute

    def reach(self, params: Array, tokens: Array) -> Array:
        """Log of how far a new run lies outside: by compute, or by size or length alone where that is farther."""
        far = [self.gap(params, tokens), params / self.params, tokens / self.tokens]
        return np.maximum(np.log(np.max(far, axis=0)), 0.0)


def estimate(
    law: Law,
    runs: Runs,
    config: FitConfig,
    bootstraps: int,
    rng: np.random.Generator,
    starts: int | None = None,
    keep: int = 24,
) -> Member:
    """Estimate a law on the runs it can use. Raises a Refusal where they do not identify it."""
    bound = bind(law, runs)
    runs = runs.take(usable(law, runs))
    repeats = from_repeats(runs)
    delta = config.delta or (1.345 * (config.seed_noise or (repeats.run if repeats else 0.0)) or 1e-3)
    weights, scale = run_weights(runs, repeats, config.seed_noise)
    problem = Problem(bound.form, bound.design(runs.columns), np.log(runs.loss), delta * scale, *bound.bounds)
    thetas, values = solve(bound, problem, weights, starts or law.starts, keep)
    best = int(np.argmin(values))
    theta = thetas[best]
    fitted = bound.form.value(theta, problem.x)
    noise = estimate_noise(runs, problem.y - fitted, len(theta), config.seed_noise)
    counts, y = samples(runs, fitted, noise, bootstraps, rng)
    draws, _ = polish(np.tile(theta, (bootstraps, 1)), problem, counts * weights, y, ROUGH, REFIT)
    value = float(objective(theta, problem, weights))
    share = float((values <= value * (1 + SAME_OBJECTIVE) + 1e-15).mean())
    return Member(bound, theta, draws, value, delta, share, noise)


def run_weights(runs: Runs, repeats: Noise | None, seed_noise: float | None) -> tuple[Array, Array]:
    """Weight (n,) of each run, and the SD (n,) of its loss over that of a well-measured one of the largest.

    The table's own weight, over the variance that repeats (luck by size and length) and `loss_se` tell of.
    """
    luck = seed_noise or (repeats.run if repeats else ASSUMED)
    scale = repeats.factor(runs.params, runs.tokens) if repeats else np.ones(len(runs))
    scale = np.sqrt(scale**2 + (measured(runs) / luck) ** 2)
    return runs.numbers.get("weight", 1.0) / scale**2, scale


@dataclass(frozen=True)
class Outlook:
    """What is expected of new runs, in log loss: arrays (n,)."""

    centre: Array
    down: Array  # parameter uncertainty below the centre, a standard deviation
    up: Array  # the same above
    between: Array  # variance between the laws
    luck: Array  # variance of one new run's luck and of what the laws miss
    df: float

    @property
    def spread(self) -> Array:
        """Standard deviation in all."""
        return np.sqrt(((self.down + self.up) / 2) ** 2 + self.between + self.luck)


@dataclass(frozen=True)
class Predictor:
    """Members with their weights, and the hold-out errors that judge their intervals."""

    members: tuple[Member, ...]
    weights: tuple[float, ...]
    range: Range
    trained_on: int
    evidence: tuple[HeldOutRun, ...]

    @property
    def tested(self) -> float:
        """Log of the largest gap that the backtest reached; 0 where nothing could be held out."""
        return max((h.reach for h in self.evidence), default=0.0)

    def predict(self, columns: Mapping[str, Array], level: float) -> tuple[Array, Array, Array, Array]:
        """Loss, low, high of one new run at each row of the columns, and the spread behind them: arrays (n,).

        Columns are params, tokens and unique_tokens. Loss is NaN where no law has anything to say.
        """
        from scipy.stats import norm
        from scipy.stats import t as student

        view = self.outlook(columns)
        reach = self.range.reach(columns["params"], columns["tokens"])
        times = float(student.ppf(0.5 + level / 2, view.df)) * self.calibration()
        normal = float(norm.ppf(0.5 + level / 2))
        floor, known = self.floor(reach)
        floor = floor * normal / norm.ppf(0.95)
        other = view.between + view.luck + (PRIOR_ERROR * reach) ** 2 / (1.0 + known)
        unseen = normal * UNSEEN * np.maximum(reach - self.tested, 0.0)
        down, up = (
            np.hypot(np.maximum(times * np.sqrt(side**2 + other), floor), unseen) for side in (view.down, view.up)
        )
        with np.errstate(over="ignore"):  # of a law that explodes; the caller refuses
            return np.exp(view.centre), np.exp(view.centre - down), np.exp(view.centre + up), view.spread

    def centre(self, columns: Mapping[str, Array]) -> tuple[Array, Array, Array]:
        """Expected log loss (n,), NaN where no law knows; that of each law (members, n); their weights."""
        centres = np.array([m.log_loss(columns) for m in self.members])
        sound = np.isfinite(centres)
        weight = np.array(self.weights)[:, None] * sound
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = weight / weight.sum(0)
        centre = np.where(sound, weight * centres, 0.0).sum(0) + np.where(sound.any(0), 0.0, np.nan)
        return centre, centres, weight

    def outlook(self, columns: Mapping[str, Array]) -> Outlook:
        """Centre and kinds of uncertainty at new runs, before the backtest is asked."""
        centre, centres, weight = self.centre(columns)
        sound = np.isfinite(centres)
        draws = sum(
            np.where(s, w * m.log_loss_draws(columns), 0.0) for s, w, m in zip(sound, weight, self.members)
        )  # (B, n)
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        between = np.where(sound, weight * (centres - centre) ** 2, 0.0).sum(0)
        n, d = columns["params"], columns["tokens"]
        own = np.array([(m.noise.run * m.noise.factor(n, d)) ** 2 + m.noise.misfit**2 for m in self.members])
        return Outlook(
            centre,
            np.maximum(centre - low, 0.0) / 1.645,
            np.maximum(high - centre, 0.0) / 1.645,
            between,
            np.where(sound, weight * own, 0.0).sum(0),
            max(min(m.noise.df for m in self.members), 2.0),
        )

    def calibration(self) -> float:
        """Return by how much the spread was too small (or large) for the errors held out."""
        errors = ((h.cut, h.error / h.spread) for h in self.evidence)
        return calibration(errors, prior_cuts=OWN_CUTS, tightest=TIGHTEST, widest=WIDEST)

    def floor(self, reach: Array) -> tuple[Array, Array]:
        """Half-width (n,) in log loss at 90% below which the backtest forbids to go.

        The root mean square of the errors held out, those from nearly as many runs and at a comparable gap before all,
        each grown with the log-gap where the target lies farther than it did. Also returns the weight (n,) of
        these errors.
        """
        if not self.evidence:
            return np.zeros_like(reach), np.zeros_like(reach)
        seen = np.array([h.reach for h in self.evidence])
        share = np.array([h.trained_on for h in self.evidence]) / self.trained_on
        errors = np.array([h.error for h in self.evidence])
        target = np.maximum(reach, 0.05)[:, None]
        weight = share**4 * np.exp(-np.abs(np.log(target / seen)))
        grown = errors * np.maximum(1.0, target / seen)
        floor = np.sqrt((weight * grown**2).sum(1) / weight.sum(1)) * np.minimum(1.0, reach / seen.min())
        return floor, weight.sum(1)
