"""A sweep whose runs differ in more than size, length, rate, schedule and seed: no two settings are pooled."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support import TINY, TINY_TEXT, proxytrain

GRID = "{model.width:[16,24,32,48],tokens:[4096,8192,16384],init_seed:[0,1],optimizer.weight_decay:[0.1,0.4]}"
SWEEP = [*TINY_TEXT, *TINY, "sweep.name=s", f"sweep.grids=[{GRID}]"]
TARGET = "sweep.target={model:{width:56},tokens:16384,optimizer:{weight_decay:0.4}}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, corpora) -> Path:
    here = tmp_path_factory.mktemp("settings")
    (here / "runs").mkdir()
    (here / "runs" / "corpora").symlink_to(corpora)
    proxytrain("sweep", *SWEEP, cwd=here)
    return here


def test_the_target_is_predicted_from_runs_of_its_own_setting(trained):
    told = proxytrain("fit", *SWEEP, TARGET, cwd=trained).stdout
    assert "24 of 24 runs" in told
    assert "rows: 24 of 48, those with optimizer.weight_decay=0.4" in told


def test_without_a_target_the_best_setting_is_kept_by_name(trained):
    told = proxytrain("fit", *SWEEP, cwd=trained).stdout
    assert "24 of 48 runs" in told
    assert "kept the best setting at each (params, tokens): optimizer.weight_decay (of 2 values): " in told


def test_keys_in_which_runs_differ_are_columns_of_the_table(trained):
    proxytrain("fit", *SWEEP, cwd=trained)
    with (trained / "runs/sweeps/s/losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["optimizer.weight_decay"] for row in rows} == {"0.1", "0.4"}
    assert "optimizer.beta1" not in rows[0]
