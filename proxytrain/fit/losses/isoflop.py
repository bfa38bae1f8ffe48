"""The best split of a budget read off the runs, without a law: parabolas at one budget each, and the lower envelope.

Both need runs that surround the best split; where there are none they refuse, and say which are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.losses.allocation import Allocation, from_draws
from proxytrain.fit.losses.frontier import falling_means, lower_hull
from proxytrain.fit.tables.runs import to_levels

ONE_BUDGET = 0.18  # log flops within which runs count as of one budget
PARABOLA_SIZES = 5  # of one budget, for a parabola with an error
NEAR_LOWEST = np.log(8.0)  # log params from the lowest point within which a parabola is fitted
RIVAL = np.log(1.2)  # log params from which another run tells whether a size is best
PARABOLA_DRAWS = 400
SURE = 0.9  # share of draws whose lowest point must lie inside the sizes that were run


def by_isoflop(
    params: Array, tokens: Array, loss: Array, flops: float, level: float, rng: np.random.Generator
) -> Allocation:
    """Parabolas in log params through the runs of one budget each, and a power law through their lowest points.

    Raises a Refusal where fewer than two budgets have runs of five sizes on both sides of their lowest point.
    """
    n, c, y = np.log(params), np.log(6.0 * params * tokens), np.log(loss)
    parabolas = [p for rows in _budgets(n, c) if (p := _parabola(n[rows], c[rows], y[rows]))]
    freedom = sum(p.freedom for p in parabolas)
    sd = float(np.sqrt(sum(p.misfit for p in parabolas) / freedom)) if freedom else 0.0  # one noise for all budgets
    found, edges = [], []
    for parabola in parabolas:
        lowest = parabola.lowest(
            parabola.fitted[:, None] + sd * rng.standard_normal((len(parabola.fitted), PARABOLA_DRAWS))
        )
        here = float(parabola.lowest(parabola.loss[:, None])[0])
        if np.isfinite(here) and np.isfinite(lowest).mean() > SURE:
            found.append((parabola.flops, here, np.where(np.isfinite(lowest), lowest, here)))
        else:
            edges.append(f"{np.exp(parabola.flops):.2g}")
    if len(found) < 2:
        edge = f" (at {', '.join(edges[:4])} FLOPs the lowest loss may lie at an edge)" if edges else ""
        raise Refusal(
            f"fewer than two budgets of FLOPs at which runs of {PARABOLA_SIZES} sizes surround the best one{edge}; add "
            "runs of smaller and larger models at the same FLOPs"
        )
    at, best, drawn = np.array([f[0] for f in found]), np.array([f[1] for f in found]), np.array([f[2] for f in found])
    variance = drawn.var(1) + 1e-8
    _, _, off = _line(at, best[:, None], 1.0 / variance)
    freedom = len(at) - 2
    if freedom:  # vertices scatter more about a line than their own errors say: as much for all (DerSimonian and Laird)
        extra = max((off[0] ** 2 / variance).sum() - freedom, 0.0) / (1.0 / variance).sum()
        drawn = drawn + np.sqrt(extra) * rng.standard_normal(drawn.shape)
        variance = variance + extra
    centre, line, _ = _line(at, best[:, None], 1.0 / variance)
    return _along(flops, level, "isoflop", centre, line[0], _line(at, drawn, 1.0 / variance)[1])


def by_envelope(
    params: Array,
    tokens: Array,
    loss: Array,
    luck: float,
    flops: float,
    level: float,
    rng: np.random.Generator,
    run: Array | None = None,
) -> Allocation:
    """A power law through the sizes of the runs on the lower convex hull of log loss over log compute.

    A run counts where runs that are smaller and larger had about its compute. `luck` is the standard deviation of a
    run's log loss, which the interval comes from: the hull of losses drawn anew. `run` (n,) numbers the run of each
    row, where rows are points along curves: they share its luck.

    Raises a Refusal where fewer than three sizes are on it.
    """
    n, c, y = np.log(params), np.log(6.0 * params * tokens), np.log(loss)
    run = np.arange(len(n)) if run is None else run
    step = _step_of_size(n, c)  # 0 where no smaller or no larger model was run
    centre = float(c[step > 0].mean()) if (step > 0).any() else 0.0
    line = _hull_line(n, c, y, step > 0, centre)
    if line is None:
        raise Refusal(
            "fewer than three sizes are best at their compute among runs of smaller and larger models; add runs of "
            "other sizes at the same FLOPs"
        )
    drawn = []
    for _ in range(PARABOLA_DRAWS):  # the best size lies between its neighbours: sizes were run in steps
        place = n + rng.uniform(-0.5, 0.5, run.max() + 1)[run] * step
        shaken = y + luck * rng.standard_normal(run.max() + 1)[run]
        drawn.append(_hull_line(place, c, shaken, step > 0, centre))
    found = np.array([d for d in drawn if d is not None])
    return _along(flops, level, "envelope", centre, line, line + found - np.median(found, axis=0))


def points_of(curves: Sequence[Any]) -> tuple[Array, Array, Array, Array]:
    """Params, tokens, loss and number of the run of points along curves, each (n,)."""
    rows = []
    for i, curve in enumerate(curves):
        if curve.params is None or curve.tokens_per_step is None:
            raise RequestError(f"{curve.name}: params and tokens_per_step are needed of every curve for an envelope")
        steps, losses = falling_means(curve.step, curve.loss)
        rows.append(np.stack([steps * 0 + curve.params, np.exp(steps) * curve.tokens_per_step, losses, steps * 0 + i]))
    n, d, loss, run = np.concatenate(rows, axis=1) if rows else np.empty((4, 0))
    return n, d, loss, run.astype(int)


def _step_of_size(n: Array, c: Array) -> Array:
    """Log params (n,) from each run to the nearest other size at about its compute; 0 where one side has none."""
    order = np.argsort(c, kind="stable")
    low, high = (np.searchsorted(c[order], c + s * np.log(2.0)) for s in (-1, 1))
    out = np.zeros(len(n))
    for i in range(len(n)):
        apart = n[order[low[i] : high[i]]] - n[i]
        above, below = apart[apart > RIVAL], -apart[apart < -RIVAL]
        if len(above) and len(below):
            out[i] = min(above.min(), below.min())
    return out


@dataclass(frozen=True)
class _Parabola:
    """Log loss over log params at one budget: `solve` (p, m) makes coefficients of losses (m,)."""

    flops: float  # mean log
    params: Array
    loss: Array
    fitted: Array
    solve: Array
    freedom: int

    @property
    def misfit(self) -> float:
        """Sum of squared residuals."""
        return float(((self.loss - self.fitted) ** 2).sum())

    def lowest(self, losses: Array) -> Array:
        """Log params (k,) at which the parabolas of losses (m, k) are lowest; NaN outside the sizes that were run."""
        _, b, c = (self.solve @ losses)[:3]
        with np.errstate(divide="ignore", invalid="ignore"):
            at = np.where(c > 0, -b / (2 * c), np.nan) + self.params.mean()
            return np.where((at > self.params.min()) & (at < self.params.max()), at, np.nan)


def _parabola(n: Array, c: Array, y: Array) -> _Parabola | None:
    near = np.abs(n - n[y.argmin()]) < NEAR_LOWEST
    n, c, y = n[near], c[near], y[near]
    if len(np.unique(to_levels(np.exp(n)))) < PARABOLA_SIZES:
        return None
    x = np.c_[np.ones(len(n)), n - n.mean(), (n - n.mean()) ** 2]
    if np.ptp(c) > 0.02 and len(n) > PARABOLA_SIZES:  # not quite of one budget: their flops take a part of it
        x = np.c_[x, c - c.mean()]
    solve = np.linalg.pinv(x)
    return _Parabola(float(c.mean()), n, y, x @ solve @ y, solve, len(y) - x.shape[1])


def _budgets(n: Array, c: Array) -> list[Array]:
    """Rows of each budget: windows of log flops with the most sizes first, each run in one of them."""
    left, out = np.ones(len(c), dtype=bool), list[Array]()
    size = to_levels(np.exp(n))
    while True:
        windows = [
            np.flatnonzero(left & (c >= start - 0.005) & (c < start + ONE_BUDGET))
            for start in np.unique(c[left].round(2))
        ]
        best = max(windows, key=lambda rows: len(np.unique(size[rows])), default=np.array([], dtype=int))
        if len(np.unique(size[best])) < PARABOLA_SIZES:
            return out
        out.append(best)
        left[best] = False


def _hull_line(n: Array, c: Array, y: Array, judged: Array, centre: float) -> Array | None:
    order = np.lexsort((y, c))
    hull = order[lower_hull(c[order], y[order])]
    hull = hull[judged[hull]]
    if len(np.unique(to_levels(np.exp(n[hull])))) < 3:
        return None
    return np.polyfit(c[hull] - centre, n[hull], 1)[::-1]


def _line(at: Array, values: Array, weight: Array) -> tuple[float, Array, Array]:
    """Weighted least squares lines through values (m, k) at `at` (m,): centre, (k, 2) height there and slope, and
    residuals (k, m)."""
    centre = float(np.average(at, weights=weight))
    x, root = np.c_[np.ones(len(at)), at - centre], np.sqrt(weight)[:, None]
    line = np.linalg.lstsq(x * root, values * root, rcond=None)[0]
    return centre, line.T, (values - x @ line).T


def _along(flops: float, level: float, approach: str, centre: float, line: Array, draws: Array) -> Allocation:
    ahead = np.log(flops) - centre
    share = np.ones(len(draws))
    return from_draws(
        flops,
        level,
        approach,
        line[0] + line[1] * ahead,
        draws[:, 0] + draws[:, 1] * ahead,
        line[1],
        draws[:, 1],
        share,
        share,
    )
