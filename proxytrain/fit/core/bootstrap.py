"""Refits that show how far the parameters could have come out otherwise.

The unit that is resampled is the trunk (with its seed): lengths branched from one trunk share its luck. With fewer than
`FEW` units resampling them would leave sizes out, and luck is drawn from the estimated components instead.
"""

from __future__ import annotations

import numpy as np

from proxytrain.arrays import Array
from proxytrain.fit.core.noise import Noise, measured, unit_index
from proxytrain.fit.tables.runs import Runs, cell_index

FEW = 20


def samples(runs: Runs, fitted: Array, noise: Noise, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Bootstrap samples of a table: weights (count, n) and log losses (count, n).

    Parameters
    ----------
    fitted : (n,)
        Log losses of the law; the parametric bootstrap adds luck to them.
    """
    n = len(runs)
    scale = noise.factor(runs.params, runs.tokens)
    unit = unit_index(runs)
    units = int(unit.max()) + 1
    if units >= FEW:
        chosen = rng.multinomial(units, np.full(units, 1.0 / units), size=count).astype(float)
        y = np.broadcast_to(np.log(runs.loss), (count, n)).copy()
        if noise.order > 0:
            y += scale * noise.order * _shared(_seed_index(runs), count, rng)
        return chosen[:, unit], y
    cell = cell_index(runs)
    luck = noise.residual * rng.standard_normal((count, n))
    luck += noise.init * _shared(unit, count, rng)
    luck += noise.order * _shared(_seed_index(runs), count, rng)
    y = (
        fitted
        + scale * luck
        + measured(runs) * rng.standard_normal((count, n))
        + noise.misfit * _shared(cell, count, rng)
    )
    return np.ones((count, n)), y


def _shared(index: Array, count: int, rng: np.random.Generator) -> Array:
    """Standard normal draws (count, n) that are equal where the index is."""
    return rng.standard_normal((count, int(index.max()) + 1))[:, index]


def _seed_index(runs: Runs) -> Array:
    seeds = runs.labels.get("data_seed")
    return np.zeros(len(runs), dtype=int) if seeds is None else np.unique(seeds, return_inverse=True)[1].reshape(-1)
