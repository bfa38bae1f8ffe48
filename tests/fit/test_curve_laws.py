"""Features of the curve laws against plain double sums, their gradients, and what the laws must do by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from proxytrain.fit.curves.history import History, nodes
from proxytrain.fit.curves.laws import annealing, kernel, multi_power

UPDATES, WARMUP = 5000, 250
S = np.arange(1, UPDATES + 1)
RISE = np.minimum(1.0, S / WARMUP)
SCHEDULES = {
    "cosine to a tenth": RISE * (0.55 + 0.45 * np.cos(np.pi * S / UPDATES)) * 3e-4,
    "cosine to zero": RISE * (0.5 + 0.5 * np.cos(np.pi * S / UPDATES)) * 3e-4,
    "wsd to zero": RISE * np.minimum(1.0, (UPDATES - S) / 1000) * 1e-3,
    "wsd, 1-sqrt": RISE * (1 - np.sqrt(np.clip((S - 4000) / 1000, 0, 1))) * 0.016,
    "two stages": RISE * np.where(S > 2500, 0.3, 1.0),
    "up and down": RISE * (0.6 + 0.4 * np.cos(S / 400)),
    "zero for a while": RISE * np.where((S > 2000) & (S < 2500), 0.0, 1.0),
    "random": RISE * np.random.default_rng(0).uniform(0.2, 1.0, UPDATES),
}
LAWS = {
    "kernel, heavy tail": (kernel, (-4.0, 0.9, 0.75)),
    "kernel, slow": (kernel, (-6.0, 0.3, 1.0)),
    "multi_power": (multi_power, (-5.0, 0.6, 0.6)),
    "annealing": (annealing, (-6.5,)),
}


def double_sum(law: str, theta: tuple[float, ...], lr: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The feature as its definition has it, update by update: (M,)."""
    u = lr / lr.max()
    total, before = np.r_[0.0, np.cumsum(u)], np.r_[0.0, u[:-1]]
    falls = np.flatnonzero(np.diff(u) < -1e-9)
    top = min(int(np.argmax(u >= 1 - 1e-9)), *(falls[:1].tolist() or [len(u)]))
    out = []
    for t in step:
        k = np.arange(t)
        drop = np.where(k > top, before[:t] - u[:t], 0.0)
        if law.startswith("kernel"):
            rate, s, p = np.exp(theta[0]), theta[1], theta[2]
            out.append(np.sum(rate * u[:t] ** (1 + p) * (1 + rate * s * (total[t] - total[1 : t + 1])) ** (-1 / s)))
        elif law == "multi_power":
            c, beta, gamma = np.exp(theta[0]), theta[1], theta[2]
            x = c * np.maximum(u[:t], 1e-12) ** -gamma * (total[t] - total[:t])
            out.append(np.sum(drop * (1 - (1 + x) ** -beta)))
        else:
            out.append(np.sum(drop * (1 - (1 - np.exp(theta[0])) ** (t - k))))
    return np.array(out)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("law", LAWS)
def test_feature_is_the_double_sum(law: str, schedule: str) -> None:
    """Times B, at most .2 nats where the feature is of order one, within 1e-4 of loss."""
    feature, theta = LAWS[law]
    lr = SCHEDULES[schedule]
    step = np.unique(np.linspace(WARMUP + 1, UPDATES, 60).astype(int))
    value, _ = feature(History.of(lr, step), np.array(theta))
    assert 0.2 * np.abs(value - double_sum(law, theta, lr, step)).max() < 1e-4


@pytest.mark.parametrize("schedule", ["wsd, 1-sqrt", "up and down", "zero for a while"])
@pytest.mark.parametrize("law", LAWS)
def test_gradients(law: str, schedule: str) -> None:
    feature, theta = LAWS[law]
    history = History.of(SCHEDULES[schedule], np.linspace(300, UPDATES, 20).astype(int))
    _, slope = feature(history, np.array(theta))
    for i, d in enumerate(1e-6 * np.eye(len(theta))):
        numeric = (feature(history, theta + d)[0] - feature(history, theta - d)[0]) / 2e-6
        np.testing.assert_allclose(slope[:, i], numeric, atol=1e-6)
    done, by_q = history.progress(0.7)
    numeric = (history.progress(0.7 + 1e-6)[0] - history.progress(0.7 - 1e-6)[0]) / 2e-6
    np.testing.assert_allclose(by_q, numeric, rtol=1e-5)
    assert (np.diff(done) >= 0).all()


@pytest.mark.parametrize("law", ["multi_power", "annealing"])
def test_a_constant_rate_anneals_nothing(law: str) -> None:
    feature, theta = LAWS[law]
    value, _ = feature(History.of(RISE * 1e-3, np.array([300, 1000, UPDATES])), np.array(theta))
    assert (value == 0.0).all()


def test_a_monotone_decay_gains_at_most_its_drop() -> None:
    lr = SCHEDULES["cosine to a tenth"]
    step = np.arange(WARMUP + 1, UPDATES, 100)
    value, _ = multi_power(History.of(lr, step), np.array(LAWS["multi_power"][1]))
    assert (value >= 0).all()
    assert (value <= 1 - lr[step - 1] / lr.max() + 1e-9).all()


def test_annealing_without_memory_is_the_drop_itself() -> None:
    lr = SCHEDULES["cosine to a tenth"]
    value, _ = annealing(History.of(lr, np.array([1000, 3000, UPDATES])), np.array([np.log(1 - 1e-9)]))
    np.testing.assert_allclose(value, 1 - lr[[999, 2999, UPDATES - 1]] / lr.max(), rtol=1e-3)


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if s != "random"])
def test_interpolating_between_nodes_is_enough(schedule: str) -> None:
    lr = SCHEDULES[schedule]
    at = nodes(lr)
    every = np.arange(WARMUP + 1, UPDATES + 1, 7)
    for feature, theta in LAWS.values():
        coarse = np.interp(every, at, feature(History.of(lr, at), np.array(theta))[0])
        assert 0.2 * np.abs(coarse - feature(History.of(lr, every), np.array(theta))[0]).max() < 1.5e-3
