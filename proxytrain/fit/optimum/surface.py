"""The shape of loss around an optimum, shared by all cells, and where in each cell its optimum lies.

log loss = floor of the cell + e^(-s t) (|q|^2 + skew(q)) / 2, with q = G (x - optimum of the cell), G triangular and
t the cell's centred log length. The valley is steeper towards high learning rates, so a plain quadratic puts the
optimum too low, the more so the farther it reaches; a cubic overcorrects where data are few. Both are fitted, and the
optimum is their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from proxytrain.arrays import Array
from proxytrain.fit.optimum.cells import Cells

HEIGHT_SCALE = 0.02  # of log loss: a run so much above its cell's best counts e^-1
MOST_HEIGHT_SCALE = 0.3
RUN_NOISE = 1e-3  # of log loss, before residuals tell; never below LEAST_RUN_NOISE
LEAST_RUN_NOISE = 1e-4
SKEW = 2.0  # prior SD of the cubic coefficients
STEEPENING = 0.5  # prior SD of s
WANDER = 2.0  # prior SD, in e-folds, of a cell's optimum around the middle of what it tried


@dataclass(frozen=True)
class Surface:
    """`optimum` (K, k), its `covariance` (K, k, k) by the noise of runs, `curvature` (K, k, k) of log loss there."""

    optimum: Array
    covariance: Array
    curvature: Array
    noise: float


def surfaces(cells: Cells, t: Array) -> tuple[Surface, Surface]:
    """The symmetric and the skewed shape; `t` (K,) is what curvature may depend on."""
    return _fit(cells, t, skewed=False), _fit(cells, t, skewed=True)


def _fit(cells: Cells, t: Array, *, skewed: bool) -> Surface:
    count, k = len(cells), cells.x.shape[1]
    lower = np.tril_indices(k)
    cubes = _cubes(k) if skewed else []
    weight = np.sqrt(_weights(cells))
    best = np.array([np.flatnonzero(cells.cell == c)[cells.loss[cells.cell == c].argmin()] for c in range(count)])
    middle = np.array([cells.x[cells.cell == c].mean(0) for c in range(count)])
    spread = np.sqrt(np.mean((cells.x - middle[cells.cell]) ** 2, axis=0))
    typical = float(np.sqrt(2 * np.average(cells.loss - cells.loss[best][cells.cell], weights=weight**2) + 1e-6))
    shape = np.diag(typical / np.maximum(spread, 0.1))[lower]
    start = np.r_[cells.loss[best], cells.x[best].ravel(), shape, 0.0, np.zeros(len(cubes))]
    at = np.cumsum([count, count * k, len(shape), 1])
    span = max(float(np.ptp(t)), 1e-9)

    def parts(p: Array) -> tuple[Array, ...]:
        g = np.zeros((k, k))
        g[lower] = p[at[1] : at[2]]
        u = cells.x - p[at[0] : at[1]].reshape(count, k)[cells.cell]
        return g.T, u, u @ g, np.exp(-p[at[2]] * t[cells.cell]), p[at[3] :]

    def value(p: Array) -> Array:
        _, _, q, scale, skew = parts(p)
        cube = sum((s * np.prod(q[:, list(m)], axis=1) for s, m in zip(skew, cubes)), np.zeros(len(q)))
        return p[: at[0]][cells.cell] + scale * ((q**2).sum(1) + cube) / 2

    def jacobian(p: Array) -> Array:
        _, u, q, scale, skew = parts(p)
        g = np.zeros((k, k))
        g[lower] = p[at[1] : at[2]]
        by_q = 2 * q  # (n, k)
        cube = np.zeros(len(q))
        out = np.zeros((len(q), len(p)))
        rows = np.arange(len(q))
        for i, (s, m) in enumerate(zip(skew, cubes)):
            product = np.prod(q[:, list(m)], axis=1)
            cube += s * product
            out[:, at[3] + i] = scale * product / 2
            for j in range(k):
                others = list(m)
                if j in others:
                    times = others.count(j)
                    others.remove(j)
                    by_q[:, j] += s * times * np.prod(q[:, others], axis=1)
        out[rows, cells.cell] = 1.0
        by_u = scale[:, None] * (by_q @ g.T) / 2
        for j in range(k):
            out[rows, at[0] + cells.cell * k + j] = -by_u[:, j]
        for i, (a, b) in enumerate(zip(*lower)):
            out[:, at[1] + i] = scale * by_q[:, b] * u[:, a] / 2
        out[:, at[2]] = -t[cells.cell] * scale * ((q**2).sum(1) + cube) / 2
        return out

    pulled = np.r_[np.arange(at[0], at[1]), at[2], np.arange(at[3], len(start))]
    centre = np.r_[middle.ravel(), 0.0, np.zeros(len(cubes))]
    sd = np.r_[np.full(count * k, WANDER), STEEPENING if span > 0.1 else 1e-6, np.full(len(cubes), SKEW)]
    prior = np.zeros((len(pulled), len(start)))
    prior[np.arange(len(pulled)), pulled] = 1 / sd

    noise, p = RUN_NOISE, start
    for _ in range(2):

        def residuals(p: Array, noise: float = noise) -> Array:
            return np.r_[weight * (cells.loss - value(p)) / noise, (p[pulled] - centre) / sd]

        def slopes(p: Array, noise: float = noise) -> Array:
            return np.r_[-weight[:, None] * jacobian(p) / noise, prior]

        done = least_squares(residuals, p, slopes, loss="huber", f_scale=1.345, x_scale="jac", max_nfev=60)
        p = done.x
        left = np.abs(cells.loss - value(p)) * weight
        near = left[weight > 0.5]
        free = max(len(near) - len(start), 0.25 * len(near))
        noise = max(float(1.4826 * np.median(near) * np.sqrt(len(near) / free)), LEAST_RUN_NOISE)
    j = np.r_[-weight[:, None] * jacobian(p) / noise, prior]
    covariance = np.linalg.pinv(j.T @ j)[at[0] : at[1], at[0] : at[1]]
    blocks = np.array([covariance[c * k : c * k + k, c * k : c * k + k] for c in range(count)])
    g = np.zeros((k, k))
    g[lower] = p[at[1] : at[2]]
    curvature = np.exp(-p[at[2]] * t)[:, None, None] * (g @ g.T)
    return Surface(p[at[0] : at[1]].reshape(count, k), blocks, curvature, noise)


def _weights(cells: Cells) -> Array:
    """(n,) e^(-height / window), the window of a cell as wide as it takes for three runs more than a parabola needs."""
    out = np.empty(len(cells.loss))
    enough = {1: 5, 2: 9}[cells.x.shape[1]]
    for c in range(len(cells)):
        inside = np.flatnonzero(cells.cell == c)
        height = cells.loss[inside] - cells.loss[inside].min()
        reach = float(np.sort(height)[min(enough, len(height)) - 1])
        out[inside] = np.exp(-height / np.clip(reach, HEIGHT_SCALE, MOST_HEIGHT_SCALE))
    return out


def _cubes(k: int) -> list[tuple[int, ...]]:
    """Third-order products of the coordinates."""
    return [(0, 0, 0)] if k == 1 else [(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)]
