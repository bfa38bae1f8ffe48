"""Log loss of a sum of power terms: value, gradient and curvature, exact, for many parameter vectors at once.

The log of a term is a linear form u_k = x_k @ theta. A plain law is log sum_k exp(u_k). Some join terms by a power,

    L = E + (T_1^(1/k) + T_2^(1/k))^k,       log(...) = k log sum_j exp(u_j / k),

which is the sum at k = 1, the larger of the two as k goes to 0, and Kaplan's law where k is the exponent in tokens. And
in some a column that is used R times over counts less and less: in place of its log v stands v + g(R), see `_worth`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from proxytrain.arrays import Array

Expansion = tuple[Array, Array, Callable[[Array], Array]]


@dataclass(frozen=True)
class Form:
    """How terms make a loss.

    `joined` are the positions of the terms under the power, `power` its place in theta. `fading` maps the position of a
    term whose column saturates to the places in theta of its exponent and of log R*, where x holds the repeats R.
    """

    joined: tuple[int, ...] = ()
    power: int = -1
    fading: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def value(self, theta: Array, x: Array) -> Array:
        """Log loss: theta (..., p), x (n, K, p) -> (..., n)."""
        u = self.logs(theta, x)
        if self.joined:
            k = theta[..., self.power][..., None]
            whole = k * softmax([u[j] / k for j in self.joined])[0]
            u = [v for i, v in enumerate(u) if i not in self.joined] + [whole]
        return softmax(u)[0]

    def logs(self, theta: Array, x: Array) -> list[Array]:
        """Log of each term, before any power joins them: K arrays (..., n)."""
        u = _logs(theta, x)
        for j, (exponent, half) in self.fading.items():
            g, _ = _worth(x[:, j, half], theta[..., half, None])
            u[j] = u[j] - x[:, j, half] * theta[..., half, None] - theta[..., exponent, None] * g
        return u

    def expand(self, theta: Array, x: Array) -> Expansion:
        """Log loss (S, n), gradient (S, n, p), and a function: c (S, n) -> sum_i c_i Hessian_i (S, p, p)."""
        if self.fading:
            return self._expand_fading(theta, x)
        return self._expand_joined(theta, x) if self.joined else _expand_sum(theta, x)

    def _expand_fading(self, theta: Array, x: Array) -> Expansion:
        f, jacobian = self._slope_fading(theta, x)

        def bend(c: Array) -> Array:
            step, p = 1e-5, theta.shape[1]
            here, out = np.matmul(c[:, None, :], jacobian)[:, 0], np.empty((len(theta), p, p))
            for i in range(p):
                there = self._slope_fading(theta + step * np.eye(p)[i], x)[1]
                out[:, i] = (np.matmul(c[:, None, :], there)[:, 0] - here) / step
            return (out + out.transpose(0, 2, 1)) / 2

        return f, jacobian, bend

    def _slope_fading(self, theta: Array, x: Array) -> tuple[Array, Array]:
        u = _logs(theta, x)
        slopes = [np.repeat(xk, len(theta), axis=0) for xk in by_term(x)]
        for j, (exponent, half) in self.fading.items():
            g, slope = _worth(x[:, j, half], theta[:, half, None])
            u[j] = u[j] - x[:, j, half] * theta[:, half, None] - theta[:, exponent, None] * g
            slopes[j][:, exponent] -= g
            slopes[j][:, half] = -theta[:, exponent, None] * slope
        f, share = softmax(u)
        return f, mix(share, slopes).transpose(0, 2, 1)

    def _expand_joined(self, theta: Array, x: Array) -> Expansion:
        rest = [i for i in range(x.shape[1]) if i not in self.joined]
        u = _logs(theta, x)
        k = theta[:, self.power][:, None]
        v = [u[j] / k for j in self.joined]
        inner, q = softmax(v)
        f, share = softmax([u[i] for i in rest] + [k * inner])
        # d(k lse(u / k)) = sum_j q_j z_j with z_j = x_j - v_j e_power, plus lse for the power itself
        z, terms = [], by_term(x)
        for j, vj in zip(self.joined, v):
            zj = np.repeat(terms[j], len(theta), axis=0)
            zj[:, self.power] -= vj
            z.append(zj)
        mean = mix(q, z)
        group = mean.copy()
        group[:, self.power] += inner
        parts = [*(terms[i] for i in rest), group]
        jacobian = mix(share, parts)

        def bend(c: Array) -> Array:
            return _scatter(c, share, parts) + _scatter(c * share[-1] / k, q, z)

        return f, jacobian.transpose(0, 2, 1), bend


def _expand_sum(theta: Array, x: Array) -> Expansion:
    f, share = softmax(_logs(theta, x))
    jacobian = mix(share, by_term(x))

    def bend(c: Array) -> Array:
        out = -outer(c, jacobian)
        for k, s in enumerate(share):
            out += _outer_fixed(c * s, x[:, k])
        return out

    return f, jacobian.transpose(0, 2, 1), bend


def _worth(repeats: Array, log_half: Array) -> tuple[Array, Array]:
    """Log of what a column is worth that is used 1 + R times, over 1 + R, and its slope in log R* (arXiv 2305.16264).

    D' / D = (1 + R* (1 - exp(-R / R*))) / (1 + R)
    """
    half = np.exp(log_half)
    rest = np.exp(-repeats / half)
    worth = 1.0 + half * (1.0 - rest)
    return np.log(worth) - np.log1p(repeats), half * (1.0 - rest - repeats / half * rest) / worth


def _logs(theta: Array, x: Array) -> list[Array]:
    """Log of each term: K arrays (..., n). Apart, because numpy reduces a short last axis slowly."""
    return [theta @ x[:, k, :].T for k in range(x.shape[1])]


def softmax(u: list[Array]) -> tuple[Array, list[Array]]:
    """log sum exp over a list of arrays, and the share of each."""
    top = u[0]
    for v in u[1:]:
        top = np.maximum(top, v)
    share = [np.exp(v - top) for v in u]
    total = share[0].copy()
    for s in share[1:]:
        total += s
    return top + np.log(total), [s / total for s in share]


# Below, gradients are (S, p, n): numpy is fast along a long last axis, and slow along a short one.


def by_term(x: Array) -> list[Array]:
    """Each term's design as (1, p, n)."""
    return [np.ascontiguousarray(x[:, k].T)[None] for k in range(x.shape[1])]


def mix(share: list[Array], vectors: list[Array]) -> Array:
    """sum_k share_k vectors_k: (S, n), (S or 1, p, n) -> (S, p, n); zero rows are skipped."""
    out = share[0][:, None] * vectors[0]
    for s, v in zip(share[1:], vectors[1:]):
        if len(v) == 1:
            for j in np.flatnonzero(v[0].any(1)):
                out[:, j] += s * v[0, j]
        else:
            out += s[:, None] * v
    return out


def outer(weight: Array, vectors: Array) -> Array:
    """sum_i w_i v_i v_i': (S, n), (S, p, n) -> (S, p, p)."""
    return np.matmul(vectors * weight[:, None, :], vectors.transpose(0, 2, 1))


def _scatter(weight: Array, share: list[Array], vectors: list[Array]) -> Array:
    """sum_i w_i (sum_k s_k v_k v_k' - m m') with m = sum_k s_k v_k, from the pairs of vectors: (S, p, p)."""
    p = vectors[-1].shape[1]
    out = np.zeros((len(weight), p, p))
    for a, b in combinations(range(len(vectors)), 2):
        out += outer(weight * share[a] * share[b], vectors[a] - vectors[b])
    return out


def _outer_fixed(weight: Array, x: Array) -> Array:
    """The same for one x (n, p) that all share: one product of matrices."""
    n, p = x.shape
    return (weight @ (x[:, :, None] * x[:, None, :]).reshape(n, p * p)).reshape(-1, p, p)
