"""The laws of loss curves, one short definition each. To add one: a function, an entry in `CURVE_LAWS`, and a test.

All have one shape, linear in its amplitudes,

    L = L0 + A T^-alpha + B V,

with progress T (a sum of learning rates) and V, what the schedule's changes do to the loss: a cost of a high rate
(noise), which in one law falls with progress, or a gain from its decay. Several sizes share the shape:
L0 = E + a N^-a1, A and B times N^-a2 and N^-a3.
Rates are in units of each curve's own peak; see `CurveFit.params` for the units that papers use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import RequestError
from proxytrain.fit.curves.history import History


@dataclass(frozen=True)
class Shape:
    """A parameter that enters nonlinearly: bounds, where the search starts, and a weak prior (mean, SD)."""

    low: float
    high: float
    starts: tuple[float, ...]
    prior: tuple[float, float]
    meaning: str


# V and its derivatives by the law's own shape parameters: (M,), (M, n)
Feature = Callable[[History, Array], tuple[Array, Array]]


@dataclass(frozen=True)
class CurveLaw:
    """A law: its V, the shape parameters of V, and whether progress counts rates to a power of its own and V falls with
    it (`q`).
    """

    name: str
    formula: str
    source: str
    feature: Feature
    shapes: Mapping[str, Shape]
    gain: bool = False  # V lowers the loss
    q: bool = False


ALPHA = Shape(0.05, 2.0, (0.3, 0.5, 0.8), (0.5, 0.25), "exponent of progress")
Q = Shape(0.05, 1.3, (0.65,), (0.65, 0.15), "exponent of the rate in progress; 1: the plain sum of rates")
FADE = Shape(-0.5, 1.0, (0.1,), (0.1, 0.2), "exponent of progress in the cost of a rate")
SIZE_SHAPES = {
    "a1": Shape(0.02, 1.5, (0.35,), (0.35, 0.3), "exponent of params in the loss that is left at the end"),
    "a2": Shape(-1.0, 1.0, (0.0,), (0.0, 0.2), "exponent of params in A"),
    "a3": Shape(-1.0, 1.0, (0.0,), (0.0, 0.2), "exponent of params in B"),
}


def annealing(history: History, theta: Array) -> tuple[Array, Array]:
    """S2, momentum of decays: m_i = lambda m_(i-1) + (rate_(i-1) - rate_i), summed over i; theta = log(1 - lambda)."""
    forget = np.exp(theta[0])
    value, slope = np.zeros(len(history.step)), np.zeros((len(history.step), 1))
    drop = np.where(history.warm, 0.0, history.before - history.after)
    log_keep = np.log1p(-forget)
    for part, age, _ in history.ages(history.step.astype(float), history.time):
        kept = np.exp(age * log_keep)
        # in units of a full decay: forget * sum of m
        value[part] = (1.0 - kept) @ drop
        slope[part, 0] = (kept * age / (1.0 - forget)) @ drop * forget
    return value, slope


def multi_power(history: History, theta: Array) -> tuple[Array, Array]:
    """Sum of drops x (1 - (1 + C rate^-gamma S)^-beta), S the rates since the drop; theta = log C, beta, gamma."""
    log_c, beta, gamma = theta
    size = len(history.step)
    value, slope = np.zeros(size), np.zeros((size, 3))
    drop = np.where(history.warm, 0.0, history.before - history.after)
    log_rate = np.log(history.rate)
    scale = np.exp(log_c - gamma * log_rate)
    for part, age, _ in history.ages(history.sum, history.place):
        x = age * scale
        log_x = np.log1p(x)
        left = np.exp(-beta * log_x)
        inner = left * (beta * x / (1.0 + x))
        value[part] = (1.0 - left) @ drop
        slope[part, 0] = inner @ drop
        slope[part, 1] = (left * log_x) @ drop
        slope[part, 2] = -(inner @ (drop * log_rate))
    return value, slope


def kernel(history: History, theta: Array) -> tuple[Array, Array]:
    """Noise that each update adds and later updates wash out: rate sum_k rate_k^(1+p) (1 + s rate (S - S_k))^(-1/s).

    theta = log rate, s, p; C = s rate and beta = 1/s in the usual notation, and s -> 0 is exponential forgetting. The
    sum over updates at constant rate is the integral of the kernel and the first Euler-Maclaurin term.
    """
    log_rate, s, p = theta
    rate = np.exp(log_rate)
    c = 1.0 - s
    size = len(history.step)
    value, slope = np.zeros(size), np.zeros((size, 3))
    logs = [np.where(r > 0, np.log(np.maximum(r, 1e-300)), 0.0) for r in (history.before, history.after)]
    powers = [np.where(r > 0, np.maximum(r, 1e-300) ** p, 0.0) for r in (history.before, history.after)]
    weight, weight_p = powers[1] - powers[0], powers[1] * logs[1] - powers[0] * logs[0]
    half = (powers[1] * history.after - powers[0] * history.before) / 2
    half_p = (powers[1] * history.after * logs[1] - powers[0] * history.before * logs[0]) / 2
    for part, age, made in history.ages(history.sum, history.place):
        u = rate * s * age
        more = 1.0 / (1.0 + u)
        log_u = np.log1p(u) / s
        tail = np.exp(-c * log_u)
        done = (1.0 - tail) / c if abs(c) > 1e-6 else log_u
        now = rate * tail * more * made  # the kernel itself, where a change was made
        by_c = (log_u * tail - done) / c if abs(c) > 1e-6 else -(log_u**2) / 2
        grown = u * more / s  # d log_u / d log rate
        log_u_s = (grown - log_u) / s
        value[part] = done @ weight - now @ half
        slope[part, 0] = (now * age) @ weight - (now * (1.0 - grown)) @ half
        slope[part, 1] = (tail * log_u_s - by_c) @ weight + (now * log_u_s) @ half
        slope[part, 2] = done @ weight_p - now @ half_p
    # the last update's own share
    last = rate * history.now ** (1.0 + p) / 2
    value += last
    slope[:, 0] += last
    slope[:, 2] += last * np.log(np.maximum(history.now, 1e-300))
    return value, slope


_RATE = Shape(-9.0, -2.3, (-5.5, -4.0, -2.5), (-4.0, 2.0), "log of the share forgotten an update at peak rate")
_S = Shape(0.02, 3.0, (0.3,), (0.3, 0.3), "1/beta of the kernel (1 + C S)^-beta; towards 0: exponential")
_P = Shape(-0.5, 3.0, (0.75,), (0.75, 0.35), "exponent of the rate in the noise")

CURVE_LAWS: dict[str, CurveLaw] = {
    law.name: law
    for law in (
        CurveLaw(
            "progress",
            "L = L0 + A T^-alpha + B T^-fade C sum_k rate_k^(1+p) (1 + C (S - S_k))^-beta, T = sum rate^q",
            "the kernel form, with progress T that counts rates to a power q, and noise that falls with it",
            kernel,
            {"log_rate": _RATE, "s": _S, "p": _P},
            q=True,
        ),
        CurveLaw(
            "kernel",
            "L = L0 + A S^-alpha + B C sum_k rate_k^(1+p) (1 + C (S - S_k))^-beta",
            "functional scaling law, after arXiv 2509.19189",
            kernel,
            {"log_rate": _RATE, "s": _S, "p": _P},
        ),
        CurveLaw(
            "multi_power",
            "L = L0 + A S^-alpha - B sum_k (rate_(k-1) - rate_k) (1 - (1 + C rate_k^-gamma S_k)^-beta)",
            "Luo et al., arXiv 2503.12811",
            multi_power,
            {
                "log_C": Shape(
                    -12.0, 3.0, (-7.0, -5.0, -3.0), (-5.5, 3.0), "log of C, with rates in units of the peak"
                ),
                "beta": Shape(0.1, 3.0, (0.6,), (0.6, 0.3), "exponent of the saturation"),
                "gamma": Shape(-0.2, 1.2, (0.6,), (0.6, 0.2), "exponent of the rate in the saturation"),
            },
            gain=True,
        ),
        CurveLaw(
            "annealing",
            "L = L0 + A S^-alpha - C S2, m_i = lambda m_(i-1) + (rate_(i-1) - rate_i), S2 = sum m_i",
            "Tissue et al., arXiv 2408.11029; lambda is estimated",
            annealing,
            {"log_forget": Shape(-11.0, -2.0, (-8.0, -6.5, -5.0), (-6.9, 2.0), "log of 1 - lambda")},
            gain=True,
        ),
    )
}
AUTO_CURVE_LAWS = ("progress", "kernel", "multi_power")


def get_curve_law(name: str) -> CurveLaw:
    """The law of a name; a RequestError lists the names."""
    if name not in CURVE_LAWS:
        raise RequestError(f"fit.law={name!r}: no such law of curves; allowed are auto, {', '.join(CURVE_LAWS)}")
    return CURVE_LAWS[name]
