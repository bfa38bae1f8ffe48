"""Farseer's law (arXiv 2506.10972): floor, amplitude and exponent of the data term each bend with size.

    log L = log[ exp(E(N)) + exp(B(N)) D^-k(N) ],    E = a3 N^g3 + b3,   B = a2 N^g2 + b2,   k = exp(a1 N^g1 + b1)

Estimated in an equivalent form whose parameters mean something at the centre of the data, where a N^g + b is degenerate
as g goes to 0: value there, slope s in z = log N - centre, and bend g of

    w(z) = (exp(g z) - 1) / g,      E = v3 + s3 w3,   log k = v1 + s1 w1,

and v2, s2 are value and slope of the whole data term at the centre of log D, which parts it from its exponent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proxytrain.arrays import Array
from proxytrain.fit.core.forms import Expansion, by_term, mix, outer, softmax

NAMES = ("b3", "b2", "b1", "a3", "a2", "a1", "g3", "g2", "g1")  # in theta: v3, v2, v1, s3, s2, s1, g3, g2, g1
FLAT = 1e-6  # |g| below it: a N^g + b is a straight line in log N, and a and b are endless
STEEPEST = 20.0  # of log k: keeps a wild trial step finite


@dataclass(frozen=True)
class FarseerForm:
    """Log loss with gradient and curvature, as :class:`proxytrain.fit.forms.Form`; x (n, 2, p) holds z and -d.

    `centre` is the mean of log tokens. Parameters after the ninth are linear in log loss (offsets).
    """

    centre: float

    def value(self, theta: Array, x: Array) -> Array:
        """Log loss: theta (..., 9 + q), x (n, 2, 9 + q) -> (..., n)."""
        return softmax(self.logs(theta, x))[0]

    def logs(self, theta: Array, x: Array) -> list[Array]:
        """Log of floor and data term: two arrays (..., n)."""
        v3, v2, v1, s3, s2, s1, g3, g2, g1 = np.moveaxis(theta[..., :9, None], -2, 0)
        z, d, c = x[:, 0, 3], -x[:, 1, 2], self.centre
        w3, w2, w1 = (_bend(g, z) for g in (g3, g2, g1))
        steep = np.exp(np.clip(s1 * w1, -STEEPEST, STEEPEST))
        data = v2 + s2 * w2 - np.exp(v1) * (steep * (d + c) - c * (1 + s1 * w2))
        rest = theta[..., 9:] @ x[:, 0, 9:].T
        return [v3 + s3 * w3 + rest, data + rest]

    def expand(self, theta: Array, x: Array) -> Expansion:
        """Log loss (S, n), gradient (S, n, p), and a function: c (S, n) -> sum_i c_i Hessian_i (S, p, p)."""
        v3, v2, v1, s3, s2, s1, g3, g2, g1 = (theta[:, i, None] for i in range(9))
        z, d, c = x[:, 0, 3], -x[:, 1, 2], self.centre
        (w3, w3_, w3__), (w2, w2_, w2__), (w1, w1_, w1__) = (_bends(g, z) for g in (g3, g2, g1))
        k0 = np.exp(v1)
        kd = k0 * np.exp(np.clip(s1 * w1, -STEEPEST, STEEPEST)) * (d + c)
        slope, pull = s2 + k0 * c * s1, kd - k0 * c * (1 + s1 * w2)
        rest = theta[:, 9:] @ x[:, 0, 9:].T
        f, share = softmax([v3 + s3 * w3 + rest, v2 + s2 * w2 - pull + rest])
        floor, data = (np.repeat(term, len(theta), axis=0) for term in by_term(x))
        floor[:, 3], floor[:, 6] = w3, s3 * w3_
        for place, part in zip((2, 4, 5, 7, 8), (-pull, w2, k0 * c * w2 - kd * w1, slope * w2_, -kd * s1 * w1_)):
            data[:, place] = part
        jacobian = mix(share, [floor, data])
        second: list[tuple[int, int, int, Array]] = [  # term, two parameters, second derivative
            (0, 3, 6, w3_),
            (0, 6, 6, s3 * w3__),
            (1, 4, 7, w2_),
            (1, 7, 7, slope * w2__),
            (1, 2, 7, k0 * c * s1 * w2_),
            (1, 5, 7, k0 * c * w2_),
            (1, 2, 2, -pull),
            (1, 2, 5, data[:, 5]),
            (1, 2, 8, data[:, 8]),
            (1, 5, 5, -kd * w1**2),
            (1, 5, 8, -kd * w1_ * (1 + s1 * w1)),
            (1, 8, 8, -kd * s1 * (w1__ + s1 * w1_**2)),
        ]

        def bend(weight: Array) -> Array:
            shares = [weight * s for s in share]
            out = outer(shares[0] * share[1], data - floor)
            for term, i, j, values in second:
                total = np.einsum("sn,sn->s", shares[term], values)
                out[:, i, j] += total
                if i != j:
                    out[:, j, i] += total
            return out

        return f, jacobian.transpose(0, 2, 1), bend


def published(params: dict[str, Array], sizes: float, lengths: float) -> dict[str, Array]:
    """The nine parameters as in the formula (N and D as counted), from those that were estimated.

    `sizes` and `lengths` are the centres of log N and of log D.
    """
    out = dict(params)
    k0 = np.exp(params["b1"])
    whole = {"1": (params["b1"], params["a1"]), "3": (params["b3"], params["a3"])}
    whole["2"] = (params["b2"] + k0 * lengths, params["a2"] + k0 * lengths * params["a1"])
    for i, (value, slope) in whole.items():
        g = params[f"g{i}"]
        g = np.where(np.abs(g) < FLAT, FLAT, g)
        out[f"a{i}"], out[f"b{i}"] = slope / g * np.exp(-g * sizes), value - slope / g
    return out


def _bend(g: Array, z: Array) -> Array:
    """(exp(g z) - 1) / g."""
    t = g * z
    near = np.abs(t) < 1e-8
    return z * np.where(near, 1.0, np.expm1(t) / np.where(near, 1.0, t))


def _bends(g: Array, z: Array) -> tuple[Array, Array, Array]:
    """(exp(g z) - 1) / g with its first and second derivative in g."""
    t = g * z
    near = np.abs(t) < 0.2
    s = np.where(near, 1.0, t)
    e, u = np.exp(s), np.where(near, t, 0.0)
    first = np.where(near, _series(u, 1), (e * (s - 1) + 1) / s**2)
    second = np.where(near, _series(u, 2), (e * (s * s - 2 * s + 2) - 2) / s**3)
    return _bend(g, z), z**2 * first, z**3 * second


def _series(t: Array, order: int) -> Array:
    """Derivative of (exp(t) - 1) / t = sum_n t^n / (n + 1)! near t = 0, by Horner's rule."""
    from math import factorial

    terms = [factorial(n) / factorial(n - order) / factorial(n + 1) for n in range(order, order + 9)]
    out = np.zeros_like(t)
    for a in reversed(terms):
        out = out * t + a
    return out
