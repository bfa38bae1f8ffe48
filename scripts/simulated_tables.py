"""Tables of losses made by laws that we know, right ones and wrong ones: what the fitter's choices are made on.

A population as wide as what is published: kinds of truth, exponents, irreducible share, planted misfit, noise that is
shared by trunks and data seeds and grows towards small runs, layouts from few runs to many, gaps from 3x to 100x. No
number here was taken from a table that the fitter is scored on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Truth = Callable[[np.ndarray, np.ndarray], np.ndarray]
KINDS = ("added", "tied", "joined", "interacting", "exponent moves with size", "bent")
LAYOUTS = ("sweep", "grid", "ladder", "isoflop", "scatter")
RIGHT = ("added", "tied")  # Chinchilla's law is right there


@dataclass(frozen=True)
class Simulated:
    """One table (columns of n values), and the run to predict: its size, length, and one draw of its loss."""

    kind: str
    layout: str
    table: dict[str, np.ndarray]
    params: float
    tokens: float
    loss: float
    gap: float
    noise: float  # seed SD of the largest runs (log loss)

    @property
    def scale(self) -> float:
        """What an error of this table is measured by: known before any fit, so that the score stays proper."""
        return float(np.hypot(self.noise, 0.004 * np.log(self.gap)))


def simulate(seed: int) -> Simulated:
    """Table number `seed` of the population; kinds and layouts take turns."""
    rng = np.random.default_rng([seed, 20221])
    kind, layout = KINDS[seed % len(KINDS)], LAYOUTS[seed // len(KINDS) % len(LAYOUTS)]
    n, d, trunk, seeds = _layout(layout, rng)
    compute = n * d
    truth = _truth(kind, n, d, rng)
    gap = float(np.exp(rng.uniform(np.log(3), np.log(30 if layout == "sweep" else 100))))
    share = 1.0 if layout == "sweep" else rng.choice([0.5, 0.5, 0.8])
    top = np.argmax(compute)
    params, tokens = float(n[top] * gap**share), float(d[top] * gap ** (1 - share))
    sd = float(np.exp(rng.uniform(np.log(5e-4), np.log(5e-3))))
    steeper = rng.choice([0.0, 0.0, 0.1, 0.2])  # noise grows towards small runs
    # luck shared by a data seed, by a trunk (elsewhere by a size: its rate suits it less or more), and a run's own
    order, init, own = np.sqrt(rng.dirichlet([1.0, 1.0, 2.0]))
    at = sd * (compute / compute.max()) ** -steeper
    at = at * np.minimum(1.0, 0.02 / at.max())
    luck = order * rng.standard_normal(seeds.max() + 1)[seeds] + init * rng.standard_normal(trunk.max() + 1)[trunk]
    luck = luck + own * rng.standard_normal(len(n))
    table = {"params": n, "tokens": d, "loss": truth(n, d) * np.exp(at * luck)}
    if layout == "sweep":
        table |= {"data_seed": seeds, "init_seed": seeds, "trunk": trunk}
    future = sd * gap ** -(steeper / 2) * rng.standard_normal()
    loss = float(truth(np.array([params]), np.array([tokens]))[0] * np.exp(future))
    return Simulated(kind, layout, table, params, tokens, loss, gap, sd)


def _layout(name: str, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Sizes, lengths, trunks and data seeds of n runs."""
    small = float(np.exp(rng.uniform(np.log(2e4), np.log(2e8))))
    ratio = float(np.exp(rng.uniform(np.log(5), np.log(60))))
    if name == "sweep":
        sizes = small * np.geomspace(1, rng.uniform(4, 15), rng.integers(4, 7))
        lengths = sizes.max() * ratio * np.geomspace(1 / 2 ** (rng.integers(3, 5) - 1), 1, rng.integers(3, 6))
        cells = [(n, d, s) for n in sizes for s in range(rng.integers(1, 4)) for d in lengths]
        n, d, seeds = (np.array(v) for v in zip(*cells))
        return n, d, np.unique(np.c_[n, seeds], axis=0, return_inverse=True)[1].reshape(-1), seeds.astype(int)
    if name == "grid":
        sizes = small * np.geomspace(1, rng.uniform(8, 100), rng.integers(4, 8))
        lengths = sizes.mean() * ratio * np.geomspace(1, rng.uniform(8, 60), rng.integers(4, 8)) / 5
        pairs = [(a, b) for a in sizes for b in lengths]
    elif name == "ladder":
        sizes = small * np.geomspace(1, rng.uniform(10, 60), rng.integers(4, 7))
        pairs = [(a, a * r) for a in sizes for r in ratio * 2.0 ** np.arange(rng.integers(3, 6))]
    elif name == "isoflop":
        budgets = 6 * small**2 * ratio * np.geomspace(1, rng.uniform(30, 300), rng.integers(4, 8))
        pairs = []
        for budget in budgets:
            for r in ratio * 3.0 ** np.linspace(-2, 2, rng.integers(5, 9)):
                a = np.sqrt(budget / 6 / r)
                pairs.append((a, a * r))
    else:
        count = int(rng.integers(25, 80))
        a = small * np.exp(rng.uniform(0, np.log(rng.uniform(20, 200)), count))
        pairs = list(zip(a, a * ratio * np.exp(rng.uniform(-1.6, 1.6, count))))
    n, d = (np.array(v, dtype=float) for v in zip(*pairs))
    index = np.arange(len(n))
    if name == "scatter":
        return n, d, index, index
    return n, d, np.unique(n, return_inverse=True)[1].reshape(-1), index


def _truth(kind: str, n: np.ndarray, d: np.ndarray, rng: np.random.Generator) -> Truth:
    """A smooth law of (params, tokens) whose terms are of a realistic size at the centre of the table."""
    n0, d0 = (float(np.exp(np.log(v).mean())) for v in (n, d))
    alpha, beta = np.exp(rng.uniform(np.log(0.2), np.log(0.6), 2))
    floor = rng.uniform(0.8, 2.5)
    split = rng.uniform(0.25, 0.75)
    above = floor * np.exp(rng.uniform(np.log(0.15), np.log(1.2)))  # reducible loss at the centre
    a, b = above * split, above * (1 - split)
    if kind == "tied":
        beta = alpha
    k = rng.uniform(0.5, 0.9)
    gamma = rng.uniform(-0.1, 0.15)
    moves = rng.normal(0, 0.012)  # change of the exponent in tokens for each e-fold of size
    bend = rng.normal(0, 0.0015, 3)  # misfit of a bent law, relative, for each e-fold squared
    if kind in RIGHT or (kind != "bent" and rng.random() < 0.5):
        bend[:] = 0.0

    def law(params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        u, v = np.log(params / n0), np.log(tokens / d0)
        size, data = a * np.exp(-alpha * u), b * np.exp(-beta * v)
        if kind == "joined":
            loss = floor + (size ** (1 / k) + data ** (1 / k)) ** k
        elif kind == "interacting":
            loss = floor + size + data * np.exp(-gamma * u)
        elif kind == "exponent moves with size":
            loss = floor + size + b * np.exp(-beta * np.exp(moves * u / beta) * v)
        else:
            loss = floor + size + data
        return loss * np.exp(bend[0] * u * u + bend[1] * u * v + bend[2] * v * v)

    return law
