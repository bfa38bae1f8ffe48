"""Critical batch size and step laws, from curves of one recipe at several batch sizes (arXiv 1812.06162, 2001.08361).

To reach a loss L in batches of B tokens takes S updates and E = B S tokens, and

    S = S_min (1 + B_crit / B),    E = E_min (1 + B / B_crit),    B_crit(L) = B* / L^(1 / alpha_B)

so (S / S_min - 1) (E / E_min - 1) = 1: at B_crit it takes twice the fewest updates and twice the fewest tokens. All the
hyperbolas are fitted at once, with an S_min of its own for each size of model and loss. Curves re-based to S_min then
lie on one trajectory a size, L = E + (N_c / N)^alpha_N + (S_c / S_min)^alpha_S (arXiv 2403.06563).

The constants belong to one setup (text, tokenizer, optimizer): always fitted again. Learning rates must be tuned for
each batch size and constant after warm-up, or what is measured is the schedule.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.core.level import checked_level
from proxytrain.fit.losses.frontier import falling_means

LEAST_BATCHES = 3
LEVELS = 8  # losses at which updates are counted
REACHED = 0.25  # of the log updates of a curve: a loss that it crosses sooner is still under warm-up
STEADY = 0.98  # share of the peak below which a learning rate has begun to fall
CRITICAL_ITERATIONS = 60
DRAWS = 200
STEEPEST_EXPONENT = 40.0  # 1 / alpha_B
FARTHEST_BATCH = 1e3  # factor beyond the batch sizes that were run to which B_crit is looked for


@dataclass(frozen=True)
class CriticalBatch:
    """What `fit_critical_batch` returns.

    `losses` (m,), `sizes` (m,) and `s_min` (m,) are the hyperbolas that were fitted: a loss, params (0 where no curve
    tells), and the fewest updates. `draws` (B, 2) are refits of log B_crit at the middle loss and of 1 / alpha_B;
    `trajectory` has E, A (log amplitude in params), alpha_N, S_c and alpha_S, the two of N where sizes differ.
    """

    b_star: float
    alpha_b: float
    intervals: dict[str, tuple[float, float]]
    level: float
    losses: list[float]
    sizes: list[float]
    s_min: list[float]
    batches: list[float]
    middle: float  # log loss
    estimate: tuple[float, float]
    draws: list[list[float]] = field(repr=False)
    misfit: float  # standard deviation of log updates about the hyperbolas
    trajectory: dict[str, float]
    source: str
    warnings: list[str]

    def critical_batch(self, loss: float) -> tuple[float, float, float]:
        """B_crit in tokens at a loss, and its interval."""
        ahead = np.log(_loss(loss)) - self.middle
        theta = np.array([self.estimate, *self.draws])
        values = np.exp(theta[:, 0] - theta[:, 1] * ahead)
        low, high = np.quantile(values[1:], [0.5 - self.level / 2, 0.5 + self.level / 2])
        return float(values[0]), float(low), float(high)

    def fewest(self, loss: float, params: float | None = None) -> tuple[float, float]:
        """S_min updates and E_min tokens to a loss, by the trajectory.

        Raises a Refusal for a loss below the trajectory's floor.
        """
        t, size = self.trajectory, self._size_term(params)
        if loss <= t["E"] + size:
            raise Refusal(f"loss={loss:g} is below {t['E'] + size:.4g}, the least that these curves tend to")
        steps = t["S_c"] * (loss - t["E"] - size) ** (-1 / t["alpha_S"])
        return steps, steps * self.critical_batch(loss)[0]

    def steps(self, loss: float, batch_tokens: float, params: float | None = None) -> float:
        """Updates to a loss in batches of so many tokens."""
        if not batch_tokens > 0:
            raise RequestError(f"batch_tokens={batch_tokens!r}: must be tokens, above 0")
        return self.fewest(loss, params)[0] * (1 + self.critical_batch(loss)[0] / batch_tokens)

    def loss(self, steps: float, batch_tokens: float, params: float | None = None) -> float:
        """Loss after so many updates in batches of so many tokens: `steps` turned round."""
        if not steps > 0:
            raise RequestError(f"steps={steps!r}: must be updates, above 0")
        low, high = self.trajectory["E"] + self._size_term(params), 20.0
        for _ in range(80):
            middle = 0.5 * (low + high)
            needed = self.steps(middle, batch_tokens, params) if middle > low else np.inf
            low, high = (middle, high) if needed > steps else (low, middle)
        return high

    def _size_term(self, params: float | None) -> float:
        if "alpha_N" not in self.trajectory:
            return 0.0
        if params is None or not params > 0:
            raise RequestError(f"params={params!r}: the curves are of several sizes; give the parameters of one")
        return float(np.exp(self.trajectory["A"] - self.trajectory["alpha_N"] * np.log(params)))

    def summary(self) -> list[str]:
        """Short lines for people."""
        ends = {k: f"[{a:.3g}, {b:.3g}]" for k, (a, b) in self.intervals.items()}
        sizes = f"{len(set(self.sizes))} sizes, " if len(set(self.sizes)) > 1 else ""
        lines = [
            f"{sizes}{len(self.batches)} batch sizes from {min(self.batches):.3g} to {max(self.batches):.3g} tokens, "
            f"{len(set(self.losses))} losses from {max(self.losses):.3g} to {min(self.losses):.3g} ({self.source})",
            "critical batch: B_crit = B* / L^(1/alpha_B), S = S_min (1 + B_crit/B), E = E_min (1 + B/B_crit)",
            f"  B* = {self.b_star:.3g} tokens {ends['b_star']}, alpha_B = {self.alpha_b:.3g} {ends['alpha_b']} "
            f"({100 * self.level:g}%); misfit {100 * self.misfit:.2g}% of the updates",
        ]
        for i in sorted({0, len(self.losses) // 2, len(self.losses) - 1}):
            value, low, high = self.critical_batch(self.losses[i])
            of = f" at {self.sizes[i]:.3g} params" if self.sizes[i] else ""
            lines.append(
                f"  loss {self.losses[i]:.4g}{of}: B_crit {value:.3g} [{low:.3g}, {high:.3g}] tokens, S_min "
                f"{self.s_min[i]:.4g} updates, E_min {self.s_min[i] * value:.3g} tokens"
            )
        t = self.trajectory
        size = f" + exp({t['A']:.3g}) params^-{t['alpha_N']:.3g}" if "alpha_N" in t else ""
        lines.append(f"trajectory: L = {t['E']:.4g}{size} + ({t['S_c']:.4g} / S_min)^{t['alpha_S']:.3g}")
        return lines + [f"warning: {w}" for w in self.warnings]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit as JSON: under a temporary name, synced, then renamed. What is without end is null there."""
        from proxytrain.fit.core.document import save_fit

        content = {"format": "proxytrain critical batch 1", **asdict(self)}
        content |= {k: _or_none(content[k]) for k in ("b_star", "alpha_b")}
        content["intervals"] = {k: [_or_none(x) for x in ends] for k, ends in self.intervals.items()}
        save_fit(path, content)


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


@dataclass(frozen=True)
class _BatchRun:
    """One curve as it falls: log updates and losses, at its batch size in tokens."""

    name: str
    params: float
    batch: float
    steps: Array
    losses: Array

    def crossing(self, loss: float) -> float:
        """Log updates at which the curve first reaches a loss; NaN outside."""
        at = float(np.interp(-loss, -self.losses, self.steps, left=np.nan, right=np.nan))
        return at if at >= self.first else np.nan

    @property
    def first(self) -> float:
        """Log updates from which a crossing counts."""
        return float(self.steps[0] + REACHED * (self.steps[-1] - self.steps[0]))


def fit_critical_batch(
    curves: Any,
    losses: Sequence[float] | None = None,
    *,
    level: float = 0.9,
    seed: int = 0,
) -> CriticalBatch:
    """Fit critical batch size and trajectory to curves at several batch sizes.

    Parameters
    ----------
    curves : sequence of Curve, path of a folder of them, DataFrame, mapping of arrays, or path of CSV or Parquet
        Curves with `tokens_per_step` (and `params`, where sizes differ; a folder's `index.csv` has both), read until
        their learning rate falls; or a table with a row for each loss that was measured: `batch_tokens`, `loss`, and
        `step` or `tokens`; optional `params`, and columns that tell runs of one batch size apart (`run`, `init_seed`,
        `data_seed`).
    losses : sequence of float, optional
        Losses at which updates are counted; default: eight that at least three batch sizes reach, for each
        size of model.
    level : float
        Of the intervals. They come from refits in which each run's residuals move together.

    Raises
    ------
    RequestError
        What cannot be read, by name.
    Refusal
        Fewer than three batch sizes, or than two losses that three of them reach; or no sign of a critical batch.

    Examples
    --------
    >>> import numpy as np
    >>> rows = [(b, s, 2 + (50 / (s / (1 + 1e5 / b))) ** 0.5) for b in (1e4, 1e5, 1e6) for s in range(100, 40000, 100)]
    >>> b, s, l = np.array(rows).T
    >>> fit = fit_critical_batch({"batch_tokens": b, "step": s, "loss": l})
    >>> round(fit.critical_batch(2.2)[0] / 1e5, 1)
    1.0
    """
    checked_level(level)
    runs, source, warnings = _read(curves)
    batches = sorted({r.batch for r in runs})
    if len(batches) < LEAST_BATCHES:
        raise Refusal(
            f"{source}: {len(batches)} batch size{'s' * (len(batches) != 1)} ({', '.join(f'{b:g}' for b in batches)} "
            f"tokens); a critical batch needs at least {LEAST_BATCHES}, better five over a factor of 30: add "
            f"{LEAST_BATCHES - len(batches)} more"
        )
    cells = _cells(runs, losses)
    if len({loss for _, loss in cells}) < 2:
        raise Refusal(
            f"{source}: fewer than two losses are reached by {LEAST_BATCHES} batch sizes of one model; train the "
            "largest batches for more tokens and the smallest for more updates"
        )
    return _fit(runs, cells, source, warnings, level, np.random.default_rng([seed, 9]))


def _cells(runs: Sequence[_BatchRun], losses: Sequence[float] | None) -> list[tuple[float, float]]:
    """(params, loss) at which at least three batch sizes cross."""
    out = []
    for size in sorted({r.params for r in runs}):
        own = [r for r in runs if r.params == size]
        asked = losses
        if asked is None:
            high = min(float(np.interp(r.first, r.steps, r.losses)) for r in own)
            lowest = sorted(min(r.losses[-1] for r in own if r.batch == b) for b in {r.batch for r in own})
            low = float(lowest[min(LEAST_BATCHES, len(lowest)) - 1])
            asked = np.geomspace(max(high, low), low, LEVELS + 1)[1:].tolist()
        for loss in asked:
            if len({r.batch for r in own if np.isfinite(r.crossing(loss))}) >= LEAST_BATCHES:
                out.append((size, float(loss)))
    return out


def _fit(
    runs: Sequence[_BatchRun],
    cells: Sequence[tuple[float, float]],
    source: str,
    warnings: list[str],
    level: float,
    rng: np.random.Generator,
) -> CriticalBatch:
    from scipy.stats import norm
    from scipy.stats import t as student

    rows = [
        (c, i, r.crossing(cells[c][1]))
        for c in range(len(cells))
        for i, r in enumerate(runs)
        if r.params == cells[c][0] and np.isfinite(r.crossing(cells[c][1]))
    ]
    cell, run = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    y = np.array([r[2] for r in rows])
    batch = np.log([runs[i].batch for i in run])
    loss = np.log([cells[c][1] for c in cell])
    middle = float(loss.mean())
    x = loss - middle
    away = np.eye(len(cells))[cell]
    away = np.eye(len(y)) - away @ (away / away.sum(0)).T  # takes from each row the mean of its cell
    starts = np.array([(b, k) for b in np.linspace(batch.min() - 4, batch.max() + 4, 12) for k in (0.0, 2.0, 6.0)])
    edge = (batch.min() - np.log(FARTHEST_BATCH), batch.max() + np.log(FARTHEST_BATCH))
    thetas, values = _hyperbolas(starts, np.tile(y, (len(starts), 1)), x, batch, away, edge)
    theta = thetas[values.argmin()]
    if not edge[0] + 1e-6 < theta[0] < edge[1] - 1e-6:
        raise Refusal(
            f"{source}: updates {'fall as one over' if theta[0] > batch.max() else 'do not depend on'} the batch over "
            f"all sizes from {np.exp(batch.min()):.3g} to {np.exp(batch.max()):.3g} tokens; add "
            f"{'larger' if theta[0] > batch.max() else 'smaller'} batches, on the other side of the critical one"
        )
    excess = np.logaddexp(0.0, theta[0] - theta[1] * x - batch)
    residual = away @ (y - excess)
    used = np.unique(run)
    spare = max(len(used) - 3, 1)  # two parameters, and what all runs have in common
    moved = residual * np.sqrt(len(used) / spare) * rng.standard_normal((DRAWS, len(runs)))[:, run]
    draws, _ = _hyperbolas(np.tile(theta, (DRAWS, 1)), (y - residual) + moved, x, batch, away, edge)
    draws = theta + (draws - draws.mean(0)) * float(student.ppf(0.5 + level / 2, spare) / norm.ppf(0.5 + level / 2))
    s_min = np.array([np.exp((y - excess)[cell == c].mean()) for c in range(len(cells))])
    if len(used) < 4:
        warnings = [*warnings, "three runs leave little to tell their luck from the law: add another batch size"]
    slope = np.quantile(draws[:, 1], [0.5 - level / 2, 0.5 + level / 2])
    star = draws[:, 0] + draws[:, 1] * middle  # log B* is log B_crit at a loss of 1
    if slope[0] <= 0:
        warnings = [*warnings, "how B_crit grows as the loss falls is not identified: alpha_B may be without end"]
    with np.errstate(over="ignore", divide="ignore"):
        ends = {
            "b_star": np.exp(np.quantile(star, [0.5 - level / 2, 0.5 + level / 2])).tolist(),
            "alpha_b": [1 / slope[1] if slope[1] > 0 else np.inf, 1 / slope[0] if slope[0] > 0 else np.inf],
        }
        b_star, alpha_b = float(np.exp(theta[0] + theta[1] * middle)), float(1 / theta[1]) if theta[1] > 0 else np.inf
    return CriticalBatch(
        b_star,
        alpha_b,
        {k: (float(a), float(b)) for k, (a, b) in ends.items()},
        level,
        [c[1] for c in cells],
        [c[0] for c in cells],
        s_min.tolist(),
        sorted({r.batch for r in runs}),
        middle,
        (float(theta[0]), float(theta[1])),
        draws.tolist(),
        float(residual.std()),
        _trajectory(runs, theta, middle),
        source,
        warnings,
    )


def _hyperbolas(
    theta: Array, y: Array, x: Array, batch: Array, away: Array, edge: tuple[float, float]
) -> tuple[Array, Array]:
    """Least squares for (log B_crit in the middle, 1 / alpha_B) from S starts (S, 2), with log updates y (S, m).

    Each cell's log S_min is taken out by `away` (m, m); damped Gauss-Newton steps, all starts at once.
    """
    low, high = np.array([edge[0], -STEEPEST_EXPONENT]), np.array([edge[1], STEEPEST_EXPONENT])

    def look(t: Array) -> tuple[Array, Array, Array]:
        u = t[:, :1] - t[:, 1:] * x - batch
        r = (y - np.logaddexp(0.0, u)) @ away
        share = 1 / (1 + np.exp(-u))
        j = np.stack([share @ away, -(share * x) @ away], axis=-1)
        return (r**2).sum(1), np.einsum("sm,smp->sp", r, j), np.einsum("smp,smq->spq", j, j)

    damping: Array = np.full(len(theta), 1e-3)
    theta = np.clip(theta, low, high)
    value, slope, bend = look(theta)
    for _ in range(CRITICAL_ITERATIONS):
        ridge = damping[:, None, None] * (np.einsum("spp->sp", bend)[:, :, None] + 1e-9) * np.eye(2)
        trial = np.clip(
            theta + np.clip(np.linalg.solve(bend + ridge + 1e-14 * np.eye(2), slope[..., None])[..., 0], -3, 3),
            low,
            high,
        )
        new = look(trial)
        better = new[0] < value
        theta[better], value[better] = trial[better], new[0][better]
        slope[better], bend[better] = new[1][better], new[2][better]
        damping = np.where(better, damping * 0.2, damping * 5)
    return theta, value


def _trajectory(runs: Sequence[_BatchRun], theta: Array, middle: float) -> dict[str, float]:
    """L = E + (N_c / N)^alpha_N + (S_c / S_min)^alpha_S through all curves, re-based to S_min."""
    from proxytrain.fit.losses.bound import Bound
    from proxytrain.fit.losses.estimate import Problem, solve
    from proxytrain.fit.losses.laws import LAWS

    steps = np.concatenate(
        [r.steps - np.logaddexp(0.0, theta[0] - theta[1] * (np.log(r.losses) - middle) - np.log(r.batch)) for r in runs]
    )
    n, loss = np.concatenate([np.full(len(r.steps), r.params) for r in runs]), np.concatenate([r.losses for r in runs])
    several = len(np.unique(n)) > 1
    columns = {"params": np.maximum(n, 1.0), "tokens": np.exp(steps)}
    law = LAWS["chinchilla" if several else "power_in_tokens"]
    centre = {c: float(np.log(v).mean()) for c, v in columns.items()}
    bound = Bound(law, (), centre, float(np.log(loss).mean()))
    problem = Problem(bound.form, bound.design(columns), np.log(loss), 1e-3, *bound.bounds)
    thetas, values = solve(bound, problem, np.ones(len(loss)), 24, 24)
    p = dict(zip(bound.names, bound.natural(thetas[values.argmin()]).tolist()))
    amplitude, exponent = (p["B"], p["beta"]) if several else (p["A"], p["alpha"])
    out = {"E": p["E"], "S_c": amplitude ** (1 / exponent), "alpha_S": exponent}
    return out | ({"A": float(np.log(p["A"])), "alpha_N": p["alpha"]} if several else {})


def _read(curves: Any) -> tuple[list[_BatchRun], str, list[str]]:
    if (
        isinstance(curves, Sequence)
        and not isinstance(curves, str)
        and all(hasattr(c, "tokens_per_step") for c in curves)
    ):
        return _of_curves(curves)
    if isinstance(curves, (str, os.PathLike)) and Path(curves).is_dir():
        from proxytrain.fit.curves.reading import read_curves
        from proxytrain.fit.curves.spikes import sound

        found, notes = read_curves(curves)
        found, left_out = sound(found)
        if not found:
            raise Refusal(f"curves={curves}: no curve is left to fit; {left_out[-1]}. Fit runs that do not diverge.")
        runs, source, warnings = _of_curves(found)
        return runs, source, [*notes, *left_out, *warnings]
    from proxytrain.fit.tables.load import load

    source, raw = load(curves)
    unit = "step" if "step" in raw else "tokens"
    missing = [c for c in ("batch_tokens", "loss", unit) if c not in raw]
    if missing:
        raise RequestError(f"{source}: no column {', '.join(missing)}; it has {', '.join(raw) or 'none'}")
    try:
        numbers = {c: np.asarray(raw[c], dtype=float) for c in ("batch_tokens", "loss", unit, "params") if c in raw}
    except (TypeError, ValueError):
        raise RequestError(f"{source}: batch_tokens, loss and {unit} must be numbers") from None
    for column, values in numbers.items():
        good = np.isfinite(values) & (values > 0) & ((values < 20) | (column != "loss"))
        if not good.all():
            i = int(np.argmin(good))
            raise RequestError(
                f"{source}: {column} in row {i + 1} is {values[i]:g}; must be above 0"
                f"{' and below 20 nats per token' if column == 'loss' else ''}"
            )
    step = numbers[unit] / (numbers["batch_tokens"] if unit == "tokens" else 1.0)
    size = numbers.get("params", np.zeros(len(step)))
    apart = [np.asarray(raw[c]).astype(str) for c in ("run", "init_seed", "data_seed") if c in raw]
    key = np.array(["\0".join(k) for k in zip(size.astype(str), numbers["batch_tokens"].astype(str), *apart)])
    runs = []
    for name in np.unique(key).tolist():
        here = key == name
        run = _run(
            name.replace("\0", " "), size[here][0], numbers["batch_tokens"][here][0], step[here], numbers["loss"][here]
        )
        runs += [run] if run else []
    return runs, source, []


def _of_curves(curves: Sequence[Any]) -> tuple[list[_BatchRun], str, list[str]]:
    runs, warnings = [], []
    for curve in curves:
        if curve.tokens_per_step is None:
            raise RequestError(f"{curve.name}: tokens_per_step is not given; a critical batch needs it of every curve")
        peak = int(np.argmax(curve.lr >= 0.999 * curve.lr.max()))
        falls = np.flatnonzero(curve.lr[peak:] < STEADY * curve.lr.max())
        end = peak + int(falls[0]) if len(falls) else len(curve.lr)
        if end < len(curve.lr) / 2:
            warnings.append(f"{curve.name}: its learning rate falls early; of {len(curve.lr)} updates {end} are read")
        steady = curve.step <= end
        run = _run(
            curve.name, curve.params or 0.0, float(curve.tokens_per_step), curve.step[steady], curve.loss[steady]
        )
        runs += [run] if run else []
    return runs, f"{len(curves)} curves", warnings


def _run(name: str, params: float, batch: float, step: Array, loss: Array) -> _BatchRun | None:
    """The curve as it falls; None where fewer than four new lows are left."""
    steps, losses = falling_means(step, loss)
    return _BatchRun(name, params, batch, steps, losses) if len(steps) >= 4 else None


def _loss(value: float) -> float:
    if not (isinstance(value, (int, float)) and 0 < value < 20):
        raise RequestError(f"loss={value!r}: must be nats per token, above 0 and below 20")
    return float(value)
