"""Jumps that came by themselves, and the bank's curves, which have none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from proxytrain.fit import Curve
from proxytrain.fit.curves.jumps import jump

DATA = Path(__file__).parents[1] / "data"


def test_plain_models_on_whole_files_of_code_learn_to_copy_the_sooner_the_wider():
    """Of `scripts/jumps.py`: at width 96 all at once, at 64 (two seeds) it begins, at 32 it has not come."""
    found = {}
    for (width, seed), run in pd.read_parquet(DATA / "jumps.parquet").groupby(["width", "seed"]):
        lr, loss = (run[c].to_numpy(float) for c in ("lr", "loss"))
        found[width, seed] = jump(Curve(lr=lr, step=np.arange(1, len(lr) + 1), loss=loss))
    assert found[32, 0] is None
    assert found[32, 1] is None
    assert found[64, 0] or found[64, 1]
    late = found[96, 0]
    assert late
    assert 0.05 < late.excess < 0.08
    assert late.start * 1024 > 1e6


@pytest.mark.parametrize(("bank", "count"), [("bank", 48), ("bank_gpt", 48)])
def test_the_regimes_of_the_banks_have_none(bank, count):
    runs = pd.read_csv(DATA / bank / "losses.csv")
    curves = dict(list(pd.read_parquet(DATA / bank / "curves.parquet").groupby("run", observed=True)))
    full = runs[(runs["schedule"] == "wsd") & (runs["tokens"] // 1000 == 3999) & runs["run"].isin(curves)]
    assert len(full) == count
    updates = full["tokens"].max() // 1024
    lr = np.interp(np.arange(updates), [0, 100, 0.8 * updates, updates], [0, 0.016, 0.016, 0.0])
    for run in full["run"]:
        assert jump(Curve(lr=lr, step=curves[run]["step"].to_numpy(), loss=curves[run]["loss"].to_numpy(float))) is None
