"""Intervals held against truth: the fitter on hundreds of sub-grids of the bank, at gaps of 3 to 100."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import bench_bank

GRIDS, FAR_GRIDS = 48, 16  # at each gap
LAWS = ("auto", "chinchilla", "two_points")


@pytest.fixture(scope="module")
def bank() -> pd.DataFrame:
    return bench_bank.read(bench_bank.BANK)


def scored(bank: pd.DataFrame, cases: list[bench_bank.Case]) -> pd.DataFrame:
    """Coverage, error, half-width and Winkler score in %, by law and gap, counted by target."""
    rows = bench_bank.each(partial(bench_bank.score, bank=bank, laws=LAWS), cases)
    return bench_bank.summary(pd.DataFrame([row for of_case in rows for row in of_case]), ["law", "gap"])


@pytest.fixture(scope="module")
def by_gap(bank: pd.DataFrame) -> pd.DataFrame:
    cases = bench_bank.cases(bank, GRIDS)
    assert len(cases) == GRIDS * len(bench_bank.GAPS)
    return scored(bank, cases)


@pytest.fixture(scope="module")
def far_off() -> pd.DataFrame:
    bank = bench_bank.read(bench_bank.BANK, far=True)
    return scored(bank, bench_bank.cases(bank, FAR_GRIDS, bench_bank.FAR))


def test_the_bank_has_what_it_promises(bank):
    cells = bank.groupby(["width", "tokens"]).size()
    assert (cells == 8).all()
    grid = cells.drop(index=208, level="width").index
    assert len(grid.unique("width")) * len(grid.unique("tokens")) == len(grid) == 36
    assert (cells.loc[208].index / 1e6).round(1).tolist() == [2.0, 4.0]
    far = bench_bank.read(bench_bank.BANK, far=True).groupby(["width", "tokens"]).size().drop(cells.index)
    assert far.to_list() == [8, 4, 4, 4, 4, 4]


@pytest.mark.parametrize("gap", bench_bank.GAPS)
def test_a_90_percent_interval_covers_the_truth_about_that_often(by_gap, gap):
    assert by_gap.loc["auto", gap]["answered"] >= 0.7  # small grids leave nothing to hold out
    assert 80 <= by_gap.loc["auto", gap]["covered"] <= 97


@pytest.mark.parametrize("gap", bench_bank.GAPS)
@pytest.mark.parametrize("other", ["chinchilla", "two_points"])
def test_intervals_are_worth_more_than_those_of_one_law_or_of_two_points(by_gap, gap, other):
    assert by_gap.loc["auto", gap]["winkler"] < by_gap.loc[other, gap]["winkler"]


@pytest.mark.parametrize("gap", bench_bank.FAR)
def test_far_beyond_the_runs_intervals_are_too_narrow_and_worth_more_than_two_points(far_off, gap):
    """Larger models learn what none of the runs has begun to learn: 70% and 77% of 100 grids each are covered."""
    assert far_off.loc["auto", gap]["covered"] >= 30
    assert far_off.loc["auto", gap]["winkler"] < 0.25 * far_off.loc["two_points", gap]["winkler"]


def test_two_seeds_tell_the_noise_of_eight(bank):
    table = bench_bank.noise(bank, pairs=4)
    ratio = table["two_seeds"] / table["all_seeds"]
    assert 0.6 < np.exp(np.log(ratio).mean()) < 1.6


@pytest.mark.slow
def test_the_command_of_the_readme_scores_every_law(tmp_path):
    command = [*shlex.split("python scripts/bench_bank.py"), "--grids", "2", "--out", str(tmp_path / "scores.json")]
    root = Path(bench_bank.__file__).parents[1]
    done = subprocess.run([sys.executable, *command[1:]], cwd=root, capture_output=True, text=True, check=True)
    rows = pd.DataFrame(json.loads((tmp_path / "scores.json").read_text()))
    assert set(rows["law"]) == set(bench_bank.LAWS)
    assert (rows.groupby("law").size() == 2 * (len(bench_bank.GAPS) + len(bench_bank.FAR))).all()
    assert "seed noise" in done.stdout
