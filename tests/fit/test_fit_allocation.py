"""The best split of a budget: closed forms as oracles."""

import numpy as np
import pytest

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit import fit_losses


def test_the_split_is_the_closed_form_of_chinchillas_law(grid):
    fit = fit_losses(grid, law="chinchilla", bootstraps=20)
    e, a, b, alpha, beta = (fit.params[k] for k in ("E", "A", "B", "alpha", "beta"))
    assert e > 0
    best = fit.optimal(1e21)
    # dL/dN = 0 at 6 N D = C (arXiv 2203.15556, eq. 4)
    g = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    assert best.params == pytest.approx(g * (1e21 / 6) ** (beta / (alpha + beta)), rel=1e-3)
    assert 6 * best.params * best.tokens == pytest.approx(1e21)


def test_tied_exponents_keep_tokens_a_parameter(grid):
    fit = fit_losses(grid, law="tied", bootstraps=20)
    small, large = fit.optimal(1e20), fit.optimal(1e21)
    assert small.tokens_per_param == pytest.approx(large.tokens_per_param, rel=1e-3)


def test_the_interval_holds_the_split_and_the_published_twenty_tokens_a_parameter(published):
    best = fit_losses(published("chinchilla_epoch.csv"), law="chinchilla", bootstraps=100).optimal(5.76e23)
    low, high = best.tokens_per_param_interval
    assert low < best.tokens_per_param < high
    assert low < 20 < high  # arXiv 2404.10102: the refit agrees with the 20 that Chinchilla was trained at


def test_no_split_without_a_trend_in_both(grid):
    flat = {**grid, "loss": 2 + 500 * np.asarray(grid["tokens"]) ** -0.3}
    with pytest.raises(Refusal):
        fit_losses(flat, law="chinchilla", bootstraps=20).optimal(1e21)


def test_a_budget_that_cannot_be_is_named(grid):
    with pytest.raises(RequestError, match="flops=7"):
        fit_losses(grid, law="tied", bootstraps=20).optimal(7)
