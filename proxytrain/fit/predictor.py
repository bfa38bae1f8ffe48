"""Laws estimated on one set of runs, and what they say about a new run: a centre and an interval for one new loss.

The interval holds four kinds of ignorance: where the parameters are (bootstrap), the luck of the new run (seed noise),
which law is right (spread of the laws combined), and what extrapolation did to this very procedure before: it is never
narrower than the errors that the backtest saw at a comparable gap, grown with the log-gap beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from proxytrain.errors import Refusal
from proxytrain.fit.bootstrap import samples
from proxytrain.fit.estimate import ROUGH, Problem, grid_starts, objective, polish
from proxytrain.fit.laws import Bound, Law, bind, usable
from proxytrain.fit.noise import Noise, estimate_noise, from_repeats
from proxytrain.fit.options import FitConfig
from proxytrain.fit.table import Runs

SAME = 1e-6  # starts that end within this relative distance of the best objective have reached it


@dataclass(frozen=True)
class Member:
    """One law, estimated: theta (p,) internal parameters, draws (B, p) of the bootstrap."""

    bound: Bound
    theta: np.ndarray
    draws: np.ndarray
    objective: float
    delta: float
    convergence: float  # share of the starts that reached the best objective
    noise: Noise

    def log_loss(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        return self.bound.form.value(self.theta, self.bound.design(columns))

    def log_loss_draws(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """(B, n)"""
        return self.bound.form.value(self.draws, self.bound.design(columns))


@dataclass(frozen=True)
class Held:
    """One held-out run of the backtest. `error` is log(prediction / truth); `reach` is what the gap is measured by."""

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

    def gap(self, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Compute of a new run over that of the largest run fitted."""
        return 6.0 * params * tokens / self.compute

    def reach(self, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Log of how far a new run lies outside: by compute, or by size or length alone where that is farther."""
        far = [self.gap(params, tokens), params / self.params, tokens / self.tokens]
        return np.maximum(np.log(np.max(far, axis=0)), 0.0)


def estimate(law: Law, runs: Runs, config: FitConfig, bootstraps: int, rng: np.random.Generator) -> Member:
    """Estimate a law on the runs it can use. Raises a Refusal where they do not identify it."""
    bound = bind(law, runs)
    runs = runs.take(usable(law, runs))
    repeats = from_repeats(runs)
    delta = config.delta or (1.345 * (config.seed_noise or (repeats.run if repeats else 0.0)) or 1e-3)
    problem = Problem(bound.form, bound.design(runs.numbers), np.log(runs.loss), delta, *bound.bounds)
    weights = run_weights(runs, repeats)
    thetas, values = polish(grid_starts(bound, problem, weights), problem, weights)
    best = int(np.argmin(values))
    theta = thetas[best]
    fitted = bound.form.value(theta, problem.x)
    noise = estimate_noise(runs, problem.y - fitted, len(theta), config.seed_noise)
    counts, y = samples(runs, fitted, noise, bootstraps, rng)
    draws, _ = polish(np.tile(theta, (bootstraps, 1)), problem, counts * weights, y, ROUGH)
    value = float(objective(theta, problem, weights))
    share = float((values <= value * (1 + SAME) + 1e-15).mean())
    return Member(bound, theta, draws, value, delta, share, noise)


def run_weights(runs: Runs, repeats: Noise | None) -> np.ndarray:
    """Weight (n,) of each run: the table's own, times what a known measurement error takes from it."""
    weights = runs.numbers.get("weight", np.ones(len(runs))).astype(float)
    if "loss_se" in runs.numbers:
        luck = repeats.run if repeats else 0.002
        weights = weights / (1.0 + (runs.numbers["loss_se"] / runs.loss / luck) ** 2)
    return weights


@dataclass(frozen=True)
class Predictor:
    """Members with their weights, and the hold-out errors that bound the interval from below."""

    members: tuple[Member, ...]
    weights: tuple[float, ...]
    range: Range
    evidence: tuple[Held, ...]

    def predict(self, params: np.ndarray, tokens: np.ndarray, level: float) -> tuple[np.ndarray, ...]:
        """Loss, low, high of one new run at each (params, tokens): three arrays (n,)."""
        from scipy.stats import t as student

        columns = {"params": params, "tokens": tokens}
        members, weights, centres, draws = [], [], [], []
        refusals = []
        for member, weight in zip(self.members, self.weights):
            try:
                centres.append(member.log_loss(columns))
            except Refusal as refusal:
                refusals.append(refusal)
                continue
            draws.append(member.log_loss_draws(columns))
            members.append(member)
            weights.append(weight)
        if not members:
            raise refusals[0]
        w = np.array(weights) / sum(weights)
        centre = np.tensordot(w, np.array(centres), 1)
        between = np.tensordot(w, (np.array(centres) - centre) ** 2, 1)
        low, high = np.quantile(np.tensordot(w, np.array(draws), 1), [0.05, 0.95], axis=0)
        luck = sum(wi * (m.noise.run**2 + m.noise.misfit**2) for wi, m in zip(w, members))
        quantile = float(student.ppf(0.5 + level / 2, max(min(m.noise.df for m in members), 2.0)))
        floor = self._floor(self.range.reach(params, tokens), level)
        half = [
            np.maximum(quantile * np.sqrt(np.maximum(side, 0.0) ** 2 + luck + between), floor)
            for side in ((centre - low) / 1.645, (high - centre) / 1.645)
        ]
        return np.exp(centre), np.exp(centre - half[0]), np.exp(centre + half[1])

    def _floor(self, reach: np.ndarray, level: float) -> np.ndarray:
        """Half-width (n,) in log loss below which the backtest forbids to go."""
        if not self.evidence:
            return np.zeros_like(reach)
        seen = np.array([h.reach for h in self.evidence])
        errors = np.abs([h.error for h in self.evidence])
        out = np.empty_like(reach)
        for i, target in enumerate(reach):
            near = seen >= 0.5 * target
            if not near.any():
                near = seen >= 0.7 * seen.max()
            scaled = np.sort(errors[near] * np.maximum(1.0, target / seen[near]))
            rank = min(int(np.ceil((len(scaled) + 1) * level)), len(scaled))
            out[i] = scaled[rank - 1] * min(1.0, target / seen.min())
        return out
