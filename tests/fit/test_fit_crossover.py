"""Two recipes: a planted crossing is found, parallel laws have none, and what is not known is not decided."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from proxytrain.analysis.crossover import compare
from proxytrain.errors import RequestError
from proxytrain.fit import fit_losses


def recipe(seed, E, A, alpha, sd, sizes=None):
    sizes = np.geomspace(1e7, 1e9, 5) if sizes is None else sizes
    n, d = (v.ravel() for v in np.meshgrid(sizes, 100 * sizes))
    loss = (E + A * n**-alpha + 2100 * d**-0.37) * np.exp(sd * np.random.default_rng(seed).standard_normal(25))
    return fit_losses({"params": n, "tokens": d, "loss": loss}, law="chinchilla", bootstraps=60)


def planted(gap):
    """Difference of the true laws at 20 tokens per parameter."""
    n = np.sqrt(gap / 6 / 20)
    return (1.8 + 480 * n**-0.35) - (1.7 + 250 * n**-0.3)


def crossing():
    flops = np.geomspace(1e15, 1e25, 4001)
    return flops[np.flatnonzero(np.diff(np.sign(planted(flops))))[-1]]


def test_a_planted_crossing_lies_in_its_interval():
    inside = 0
    for seed in range(6):
        result = compare(recipe(seed, 1.8, 480, 0.35, 0.001), recipe(seed + 50, 1.7, 250, 0.3, 0.001))
        low, high = result.crossing_interval
        inside += low < crossing() < high
        assert low <= result.crossing <= high
        assert result.where == "beyond"
        assert result.winner in ("b", None)
    assert inside >= 5


def test_a_crossing_inside_the_runs_or_before_them_is_said_to_be_there():
    """The laws cross at ten billion parameters: runs on both sides of that, and larger ones only."""
    for least, where in ((2e9, "inside"), (2.5e10, "before")):
        sizes = np.geomspace(least, 10 * least, 5)
        a, b = recipe(1, 1.8, 480, 0.35, 1e-5, sizes), recipe(2, 1.7, 250, 0.3, 1e-5, sizes)
        assert compare(a, b).where == where


def test_the_slope_of_the_difference_has_an_interval():
    apart = compare(recipe(1, 1.8, 480, 0.35, 0.0005), recipe(2, 1.7, 250, 0.3, 0.0005))
    assert apart.slope_interval[0] < apart.slope < apart.slope_interval[1]
    same = compare(recipe(1, 1.8, 480, 0.35, 0.004), recipe(2, 1.8, 480, 0.35, 0.004))
    assert same.slope_interval[0] < 0 < same.slope_interval[1]


def test_parallel_laws_do_not_cross():
    result = compare(recipe(1, 1.8, 480, 0.35, 0.0005), recipe(2, 1.9, 480, 0.35, 0.0005), 20)
    assert result.crossing is None
    assert result.winner == "a"


def test_two_seeds_of_one_recipe_have_no_winner():
    assert compare(recipe(1, 1.8, 480, 0.35, 0.004), recipe(2, 1.8, 480, 0.35, 0.004), 20).winner is None


def test_a_ratio_that_cannot_be_is_named():
    fit = recipe(1, 1.8, 480, 0.35, 0.001)
    with pytest.raises(RequestError, match="tokens_per_param=-1"):
        compare(fit, fit, -1)


def test_the_command_line_compares_two_tables(tmp_path):
    for name, seed, e in (("a", 1, 1.8), ("b", 2, 1.9)):
        runs = recipe(seed, e, 480, 0.35, 0.0005).runs
        pd.DataFrame({c: runs[c] for c in ("params", "tokens", "loss")}).to_csv(tmp_path / f"{name}.csv", index=False)
    command = [sys.executable, "-m", "proxytrain", "fit", "compare=[a.csv,b.csv]", "fit.law=chinchilla"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "winner: a.csv" in done.stdout
    done = subprocess.run([*command[:4], "compare=[a.csv]"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "two tables are compared" in done.stderr
