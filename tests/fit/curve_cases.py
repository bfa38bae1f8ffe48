"""Curves of a planted law as files that somebody else wrote: other names, other units, smoothed, diverged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

Change = Callable[[pd.DataFrame, int], pd.DataFrame]
RUNS = [(n, kind, steps) for n in (1e6, 3e6, 9e6) for kind, steps in (("cosine", 3000), ("wsd", 3000), ("wsd", 1500))]
SPOILT = 4  # number of the run that a case spoils


def planted(params: float, kind: str, steps: int) -> pd.DataFrame:
    """Return step, lr and loss of one run without noise."""
    t = np.arange(1, steps + 1)
    if kind == "wsd":
        shape = 1 - 0.9 * np.clip((t - 0.8 * steps) / (0.2 * steps), 0, 1)
    else:
        shape = 0.1 + 0.45 * (1 + np.cos(np.pi * np.clip((t - 100) / (steps - 100), 0, 1)))
    lr = np.minimum(1, t / 100) * shape
    loss = 1.9 + 30 * params**-0.22 + 4.2 * (np.cumsum(lr) + 30) ** -0.32 + 0.25 * lr
    return pd.DataFrame({"step": t, "lr": 1e-3 * lr, "loss": loss})


def noisy(params: float, kind: str, steps: int, seed: int) -> pd.DataFrame:
    """Return the same with the noise of batches, 1% of the loss."""
    run = planted(params, kind, steps)
    return run.assign(loss=run.loss * np.exp(0.01 * np.random.default_rng(seed).standard_normal(steps)))


def write(folder: Path, change: Change = lambda run, _: run, every: int = 5, **index: object) -> Path:
    """Write nine runs and their index.csv; `index` has columns that differ from the usual ones."""
    folder.mkdir(exist_ok=True)
    for j, (n, kind, steps) in enumerate(RUNS):
        change(noisy(n, kind, steps, j), j).iloc[every - 1 :: every].to_csv(folder / f"run_{j}.csv", index=False)
    usual = {"file": [f"run_{j}.csv" for j in range(len(RUNS))], "params": [n for n, _, _ in RUNS]}
    columns = {**usual, "tokens_per_step": 2048, **index}
    pd.DataFrame({k: v for k, v in columns.items() if v is not None}).to_csv(folder / "index.csv", index=False)
    return folder


TARGET = planted(27e6, "wsd", 6000)  # a run that none of the nine is
