"""Tables of runs of a planted law, as people keep them, for the tests of how they are read."""

from __future__ import annotations

import numpy as np
import pandas as pd

SIZES, LENGTHS = (10e6, 20e6, 40e6, 80e6, 160e6), (0.2e9, 0.4e9, 0.8e9, 1.6e9)
TARGET = {"params": 400e6, "tokens": 6.4e9}


def planted(n, d):
    return 1.8 + 400 * np.asarray(n) ** -0.34 + 1200 * np.asarray(d) ** -0.36


def runs(seeds=(0, 1), noise=0.003, seed=0, lengths=LENGTHS) -> pd.DataFrame:
    """Five sizes by four lengths, each under two seeds."""
    rng = np.random.default_rng(seed)
    cells = [(n, d, s) for n in SIZES for d in lengths for s in seeds]
    rows = [(n, d, s, planted(n, d) * np.exp(noise * rng.standard_normal())) for n, d, s in cells]
    return pd.DataFrame(rows, columns=["params", "tokens", "init_seed", "loss"])


def weight_decays() -> pd.DataFrame:
    """Those runs under three weight decays, of which 0.1 is the best."""
    parts = [
        runs(seed=i).assign(weight_decay=decay, loss=lambda t, e=effect: t.loss * e)
        for i, (decay, effect) in enumerate(((0.0, 1.06), (0.1, 1.0), (1.0, 1.04)))
    ]
    return pd.concat(parts, ignore_index=True)


def checkpoints(rows: int = 40, spacing=np.linspace, **columns) -> pd.DataFrame:
    """Losses along cosine runs of 80 tokens per parameter: above the planted law until a run's end."""
    out = []
    for n in SIZES:
        for share in spacing(1 / rows, 1, rows):
            rate = 0.5 * (1 + np.cos(np.pi * share))
            loss = planted(n, 80 * n * share) * (1 + 0.05 * rate)
            out.append(
                {"model": f"{n / 1e6:g}M", "step": round(1e4 * share), "params": n, "tokens": 80 * n * share}
                | {"loss": loss}
            )
    return pd.DataFrame(out).assign(**columns)
