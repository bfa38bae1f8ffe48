"""Estimation of a law: Huber loss on log residuals, all starts (or all bootstrap refits) at once.

    minimise  sum_i w_i Huber_delta(log L_i(theta) - log loss_i)          (arXiv 2203.15556, approach 3)

Starts come from a grid of exponents with non-negative least squares for the amplitudes inside (variable projection).
Each is then polished by a damped Newton method with exact gradient and curvature. With a delta far under the noise the
objective is almost a sum of absolute values: the majorising quadratic of iteratively reweighted least squares gives the
damping, so a step is Newton's where that works and a safe reweighted one where it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from proxytrain.arrays import Array
from proxytrain.fit.core.forms import Form
from proxytrain.fit.losses.bound import Bound
from proxytrain.fit.losses.farseer import FarseerForm

ITERATIONS = 200
REFIT = (
    10  # Newton steps of a bootstrap refit, which begins at the estimate (few are enough: Andrews, Econometrica 2002)
)
FINE = 1e-13  # a step that gains less than this share of the objective is the last
ROUGH = 1e-6  # the same for bootstrap refits: far below their spread
CHUNK_VALUES = 200_000  # starts x rows x terms handled together: stays within the processor's cache


@dataclass(frozen=True)
class Problem:
    """What is minimised: design x (n, K, p), log losses y (n,), Huber's delta (or one a run), bounds (p,), (p,)."""

    form: Form | FarseerForm
    x: Array
    y: Array
    delta: float | Array
    low: Array
    high: Array


def objective(theta: Array, problem: Problem, weights: Array) -> Array:
    """Value of the objective: theta (S, p), weights (n,) or (S, n) -> (S,)."""
    return (weights * _huber(problem.form.value(theta, problem.x) - problem.y, problem.delta)).sum(-1)


def _huber(r: Array, delta: float | Array) -> Array:
    a = np.abs(r)
    small = np.minimum(a, delta)
    return small * (a - 0.5 * small)


def polish(
    theta: Array,
    problem: Problem,
    weights: Array,
    y: Array | None = None,
    tolerance: float = FINE,
    iterations: int = ITERATIONS,
) -> tuple[Array, Array]:
    """Minimise from each of S starts.

    Parameters
    ----------
    theta : (S, p)
        Starts.
    weights : (n,) or (S, n)
        Weight of each run; counts of a bootstrap sample, for instance.
    y : (S, n), optional
        Log losses of each start, where they differ (a parametric bootstrap).
    tolerance : float
        Relative gain of the objective under which a step is the last.
    iterations : int
        Steps at most.

    Returns
    -------
    theta : (S, p)
    objective : (S,)
    """
    count, n = len(theta), len(problem.y)
    weights = np.broadcast_to(weights, (count, n))
    targets = np.broadcast_to(problem.y if y is None else y, (count, n))
    size = max(1, CHUNK_VALUES // problem.x[..., 0].size)
    parts = [
        _polish_chunk(theta[i : i + size], problem, weights[i : i + size], targets[i : i + size], tolerance, iterations)
        for i in range(0, count, size)
    ]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _polish_chunk(
    theta: Array, problem: Problem, weights: Array, y: Array, tolerance: float, iterations: int
) -> tuple[Array, Array]:
    theta = np.clip(theta, problem.low, problem.high)
    damping: Array = np.ones(len(theta))
    value, gradient, newton, safe = _expand(theta, problem, weights, y)
    active = np.arange(len(theta))  # starts that still move
    best_theta, best_value = theta.copy(), value.copy()
    for _ in range(iterations):
        step = _step(theta, gradient, newton, safe, damping, problem)
        trial = np.clip(theta + step, problem.low, problem.high)
        new = _expand(trial, problem, weights, y)
        better = new[0] < value
        gain = np.where(better, value - new[0], 0.0)
        settled = np.abs(trial - theta).max(1) < 1e-9
        tiny = better & (gain <= tolerance * value)
        for old, fresh in zip((theta, value, gradient, newton, safe), (trial, *new)):
            old[better] = fresh[better]
        damping = np.where(better, np.maximum(damping * 0.2, 1e-9), damping * 5.0)
        best_theta[active], best_value[active] = theta, value
        keep = ~(settled | tiny | (damping > 1e8))
        if not keep.any():
            break
        if not keep.all():
            active, theta, value, damping = active[keep], theta[keep], value[keep], damping[keep]
            gradient, newton, safe = gradient[keep], newton[keep], safe[keep]
            weights, y = weights[keep], y[keep]
    return best_theta, best_value


def _expand(theta: Array, problem: Problem, weights: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """Value (S,), gradient (S, p), exact curvature (S, p, p), majorising curvature (S, p, p)."""
    f, jacobian, bend = problem.form.expand(theta, problem.x)
    r = f - y
    a = np.abs(r)
    inside = a <= problem.delta
    pull = weights * np.clip(r, -problem.delta, problem.delta)  # d objective / d log L
    value = (weights * np.where(inside, 0.5 * r * r, problem.delta * (a - 0.5 * problem.delta))).sum(-1)
    gradient = np.matmul(pull[:, None, :], jacobian)[:, 0]
    jt = jacobian.transpose(0, 2, 1)
    near = np.where(inside, weights, 0.0)
    newton = bend(pull) + np.matmul(jt * near[:, None, :], jacobian)
    safe = np.matmul(jt * (weights * problem.delta / np.maximum(a, problem.delta))[:, None, :], jacobian)
    return value, gradient, newton, safe


def _step(
    theta: Array,
    gradient: Array,
    newton: Array,
    safe: Array,
    damping: Array,
    problem: Problem,
) -> Array:
    """Damped Newton step (S, p); a parameter that its bound holds back does not move."""
    p = theta.shape[1]
    diagonal = np.einsum("sii->si", safe)
    ridge = 1e-3 * diagonal + 1e-9 * diagonal.max(1, keepdims=True) + 1e-300
    matrix = newton + damping[:, None, None] * (safe + ridge[:, :, None] * np.eye(p))
    held = ((theta <= problem.low) & (gradient > 0)) | ((theta >= problem.high) & (gradient < 0))
    free = (~held).astype(float)
    matrix = matrix * free[:, :, None] * free[:, None, :] + (held[:, :, None] * np.eye(p))
    matrix += 1e-12 * np.maximum(diagonal.max(1), 1e-300)[:, None, None] * np.eye(p)
    step = -np.linalg.solve(matrix, (gradient * free)[..., None])[..., 0]
    return np.clip(step, -2.0, 2.0)


def solve(bound: Bound, problem: Problem, weights: Array, starts: int, keep: int) -> tuple[Array, Array]:
    """Minimise from `starts` points of the grid; of these the `keep` that lead after a few steps go to the end.

    Returns theta (keep, p) and the objective (keep,) of each.
    """
    theta = grid_starts(bound, problem, weights, starts)
    if keep < starts:
        theta, value = polish(theta, problem, weights, iterations=REFIT)
        theta = theta[np.argsort(value, kind="stable")[:keep]]
    return polish(theta, problem, weights)


def grid_starts(bound: Bound, problem: Problem, weights: Array, best: int = 24) -> Array:
    """Starts (S, p): the `best` points of the exponent grid, with the amplitudes that fit them best."""
    theta = project(bound, problem, weights, np.array(list(product(*bound.grids))))
    order = np.argsort(objective(theta, problem, weights), kind="stable")
    return theta[order[:best]]


def project(bound: Bound, problem: Problem, weights: Array, exponents: Array) -> Array:
    """Non-negative least squares for the amplitudes at given exponents (G, m): theta (G, p).

    Terms that a power joins are taken as if they were added: a start needs no more.
    """
    k = len(bound.amplitudes)
    relative = np.exp(-problem.y)  # least squares on the relative error
    bare = np.concatenate([np.zeros((len(exponents), k)), exponents], axis=1)
    powers = np.exp(np.stack(problem.form.logs(bare, problem.x), axis=-1))  # (G, n, K)
    basis = np.einsum("gnk,nka->gna", powers, problem.x[:, :, :k]) * relative[None, :, None]
    weighted = basis * weights[None, :, None]
    gram = np.matmul(basis.transpose(0, 2, 1), weighted)  # (G, k, k)
    moment = weighted.sum(1)
    amplitude = _non_negative(gram, moment)
    floor = 0.02 * np.exp(problem.y.mean())  # a start at zero would never leave it
    return np.concatenate([np.log(np.maximum(amplitude, floor)), exponents], axis=1)


def _non_negative(gram: Array, moment: Array, sweeps: int = 60) -> Array:
    """Non-negative least squares by coordinate descent on G normal equations at once: (G, k)."""
    diagonal = np.einsum("gkk->gk", gram)
    ridge = 1e-12 * diagonal.max(1, keepdims=True)
    k = gram.shape[1]
    solution = np.linalg.solve(gram + ridge[:, :, None] * np.eye(k), moment[..., None])[..., 0]
    negative = (solution <= 0).any(1)
    a = np.maximum(solution[negative], 0)
    g, b, d = gram[negative], moment[negative], diagonal[negative] + ridge[negative]
    for _ in range(sweeps):
        for j in range(k):
            a[:, j] = np.maximum(0, a[:, j] + (b[:, j] - np.einsum("gk,gk->g", g[:, j], a)) / d[:, j])
    solution[negative] = a
    return solution
