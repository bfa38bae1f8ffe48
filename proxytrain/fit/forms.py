"""Log loss of a sum of power terms: value, gradient and curvature, exact, for many parameter vectors at once.

The log of a term is a linear form u_k = x_k @ theta. A plain law is log sum_k exp(u_k). Some join terms by a power,

    L = E + (T_1^(1/k) + T_2^(1/k))^k,       log(...) = k log sum_j exp(u_j / k),

which is the sum at k = 1, the larger of the two as k goes to 0, and Kaplan's law where k is the exponent in tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Expansion = tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]


@dataclass(frozen=True)
class Form:
    """How terms make a loss: `joined` are the positions of the terms under the power, `power` its place in theta."""

    joined: tuple[int, ...] = ()
    power: int = -1

    def value(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Log loss: theta (..., p), x (n, K, p) -> (..., n)."""
        u = _logs(theta, x)
        if self.joined:
            k = theta[..., self.power][..., None]
            whole = k * _softmax([u[j] / k for j in self.joined])[0]
            u = [v for i, v in enumerate(u) if i not in self.joined] + [whole]
        return _softmax(u)[0]

    def expand(self, theta: np.ndarray, x: np.ndarray) -> Expansion:
        """Log loss (S, n), gradient (S, n, p), and a function: c (S, n) -> sum_i c_i Hessian_i (S, p, p)."""
        return self._expand_joined(theta, x) if self.joined else _expand_sum(theta, x)

    def _expand_joined(self, theta: np.ndarray, x: np.ndarray) -> Expansion:
        rest = [i for i in range(x.shape[1]) if i not in self.joined]
        u = _logs(theta, x)
        k = theta[:, self.power][:, None]
        v = [u[j] / k for j in self.joined]
        inner, q = _softmax(v)
        f, share = _softmax([u[i] for i in rest] + [k * inner])
        # d(k lse(u / k)) = sum_j q_j z_j with z_j = x_j - v_j e_power, plus lse for the power itself
        z = []
        for j, vj in zip(self.joined, v):
            zj = np.repeat(x[None, :, j, :], len(theta), axis=0)
            zj[..., self.power] -= vj
            z.append(zj)
        mean = _mix(q, z)
        group = mean.copy()
        group[..., self.power] += inner
        parts = [np.broadcast_to(x[None, :, i, :], mean.shape) for i in rest] + [group]
        jacobian = _mix(share, parts)

        def bend(c: np.ndarray) -> np.ndarray:
            weight = c * share[-1] / k
            out = -_outer(c, jacobian) - _outer(weight, mean)
            for sj, part in zip(share, parts):
                out += _outer(c * sj, part)
            for qj, zj in zip(q, z):
                out += _outer(weight * qj, zj)
            return out

        return f, jacobian, bend


def _expand_sum(theta: np.ndarray, x: np.ndarray) -> Expansion:
    n, terms, p = x.shape
    f, share = _softmax(_logs(theta, x))
    jacobian = _mix(share, [x[None, :, k, :] for k in range(terms)])

    def bend(c: np.ndarray) -> np.ndarray:
        out = -_outer(c, jacobian)
        for k in range(terms):
            outer = (x[:, k, :, None] * x[:, k, None, :]).reshape(n, p * p)
            out += ((c * share[k]) @ outer).reshape(-1, p, p)
        return out

    return f, jacobian, bend


def _logs(theta: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
    """Log of each term: K arrays (..., n). Apart, because numpy reduces a short last axis slowly."""
    return [theta @ x[:, k, :].T for k in range(x.shape[1])]


def _softmax(u: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """log sum exp over a list of arrays, and the share of each."""
    top = u[0]
    for v in u[1:]:
        top = np.maximum(top, v)
    share = [np.exp(v - top) for v in u]
    total = share[0].copy()
    for s in share[1:]:
        total += s
    return top + np.log(total), [s / total for s in share]


def _mix(share: list[np.ndarray], vectors: list[np.ndarray]) -> np.ndarray:
    """sum_k share_k vectors_k: (S, n), (S or 1, n, p) -> (S, n, p)."""
    out = share[0][..., None] * vectors[0]
    for s, v in zip(share[1:], vectors[1:]):
        out += s[..., None] * v
    return out


def _outer(weight: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """sum_i w_i v_i v_i': (S, n), (S, n, p) -> (S, p, p)."""
    return np.matmul(vectors.transpose(0, 2, 1) * weight[:, None, :], vectors)
