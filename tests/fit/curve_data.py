"""Loss curves made by a known law, with noise like that of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from proxytrain.fit import Curve

UPDATES, WARMUP = 6000, 300


def rates(kind: str, updates: int = UPDATES, peak: float = 1e-3) -> np.ndarray:
    """Learning rates (updates,) of a named schedule."""
    s = np.arange(1, updates + 1)
    rise = np.minimum(1.0, s / WARMUP)
    decay = np.clip((s - 0.8 * updates) / (0.2 * updates), 0, 1)
    shapes = {
        "constant": np.ones(updates),
        "cosine": 0.55 + 0.45 * np.cos(np.pi * s / updates),
        "wsd": 1 - decay,
        "sqrt": 1 - np.sqrt(decay),
        "two": np.where(s > updates // 2, 0.3, 1.0),
    }
    return peak * rise * shapes[kind]


def losses(lr: np.ndarray, size: float = 1.0, fade: float = 0.0) -> np.ndarray:
    """(S,) loss after each update by the plain double sum's recurrence: exponential forgetting, q = .6, p = .8.

    `size` is params over 1e7: L0 = 2 + .8 size^-.3, A and B do not depend on it. The noise falls with progress^-`fade`.
    """
    u = lr / lr.max()
    progress = np.cumsum(np.maximum(u, 1e-12) ** 0.6)
    noise, rate, last = np.empty(len(u)), np.exp(-4.0), 0.0
    for i, x in enumerate(u):
        last = last * np.exp(-rate * x) + rate * x**1.8
        noise[i] = last
    return 2.0 + 0.8 * size**-0.3 + 1.2 * (progress / 3000) ** -0.5 + 0.15 * noise * (progress / 3000) ** -fade


def curve(
    kind: str, *, updates: int = UPDATES, size: float | None = None, seed: int = 0, sd: float = 0.01, peak: float = 1e-3
) -> Curve:
    """A training curve: a loss every fourth update from the hundredth on, with independent noise and .05% of luck."""
    rng = np.random.default_rng([seed, updates, len(kind), int(100 * (size or 1))])
    lr = rates(kind, updates, peak)
    step = np.arange(100, updates + 1, 4)
    luck = 1 + 5e-4 * rng.standard_normal()
    loss = losses(lr, size or 1.0)[step - 1] * luck * (1 + sd * rng.standard_normal(len(step)))
    return Curve(lr=lr, step=step, loss=loss, params=size and 1e7 * size, name=f"{kind} {updates} {size or ''}".strip())


def published(folder: Path) -> dict[str, Curve]:
    """The curves of a folder by name, as the reader gives them."""
    from proxytrain.fit.curves.reading import read_curves

    return {c.name: c for c in read_curves(folder)[0]}
