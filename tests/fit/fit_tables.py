"""Tables with a known answer, for the tests of the fit."""

from __future__ import annotations

import numpy as np

WIDTHS = (24, 32, 48, 64, 80)
LENGTHS = (0.5e6, 1e6, 2e6, 4e6)


def chinchilla(n, d, E=1.8, A=480.0, B=2100.0, alpha=0.35, beta=0.37):
    return E + A * np.asarray(n) ** -alpha + B * np.asarray(d) ** -beta


def sweep(seed: int, truth, sd: float = 0.002, ratio: float = 4.0):
    """What a small sweep makes: five widths, four lengths from shared trunks, two seeds; and the target with its loss.

    Luck is shared by the runs of a data seed (order), by the lengths of a trunk (init), and a run's own.
    """
    rng = np.random.default_rng([11, seed])
    order, init, own = np.array([0.5, 0.6, 0.6]) * sd / np.sqrt(0.25 + 0.36 + 0.36)
    shared = rng.normal(0, order, 2)
    rows = []
    for width in WIDTHS:
        for s in range(2):
            trunk = rng.normal(0, init)
            for d in LENGTHS:
                n = 24.0 * width**2
                loss = truth(n, d) * np.exp(shared[s] + trunk + rng.normal(0, own))
                rows.append((n, d, loss, s, s, f"w{width}-s{s}"))
    names = ("params", "tokens", "loss", "init_seed", "data_seed", "trunk")
    target = {"params": 24.0 * WIDTHS[-1] ** 2 * ratio, "tokens": LENGTHS[-1]}
    loss = truth(target["params"], target["tokens"]) * np.exp(rng.normal(0, sd))
    return {k: np.array(v) for k, v in zip(names, zip(*rows))}, target, loss
