"""Two recipes: a planted crossing is found, parallel laws have none, and what is not known is not decided."""

import numpy as np
import pytest

from proxytrain.errors import RequestError
from proxytrain.fit import compare, fit_losses


def recipe(seed, E, A, alpha, sd):
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5)))
    loss = (E + A * n**-alpha + 2100 * d**-0.37) * np.exp(sd * np.random.default_rng(seed).standard_normal(25))
    return fit_losses({"params": n, "tokens": d, "loss": loss}, law="chinchilla", bootstraps=60)


def planted(gap):
    """Difference of the true laws at 20 tokens a parameter."""
    n = np.sqrt(gap / 6 / 20)
    return (1.8 + 480 * n**-0.35) - (1.7 + 250 * n**-0.3)


def test_a_planted_crossing_lies_in_its_interval():
    result = compare(recipe(1, 1.8, 480, 0.35, 0.001), recipe(2, 1.7, 250, 0.3, 0.001), 20)
    flops = result.flops
    true = flops[np.flatnonzero(np.diff(np.sign(planted(flops))))[-1]]
    low, high = result.crossing_interval
    assert low < true < high
    assert low <= result.crossing <= high
    assert result.winner in ("b", None)


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
