"""Estimation: known parameters come back, published optima are reached, whatever the start and the units."""

import numpy as np
import pytest

from proxytrain.errors import Refusal
from proxytrain.fit import LAWS, fit_losses
from proxytrain.fit.core.forms import _worth
from proxytrain.fit.losses.bound import Bound, bind
from proxytrain.fit.losses.estimate import Problem, _expand, grid_starts, objective, polish, project
from proxytrain.fit.tables.table import read_runs

PUBLISHED = {"A": 477.84, "B": 2143.86, "E": 1.81724, "alpha": 0.34731, "beta": 0.36718}
PUBLISHED_STDERR = {"A": 124.52, "B": 1293.28, "E": 0.02566, "alpha": 0.0154, "beta": 0.0206}


def setup(law: str, table) -> tuple[Bound, Problem]:
    runs = read_runs(table)
    bound = bind(LAWS[law], runs)
    return bound, Problem(bound.form, bound.design(runs.numbers), np.log(runs.loss), 1e-3, *bound.bounds)


def test_a_noiseless_chinchilla_table_gives_its_parameters_back(grid):
    fit = fit_losses(grid, law="chinchilla", bootstraps=20)
    for name, true in {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}.items():
        assert fit.params[name] == pytest.approx(true, rel=1e-3)


def test_a_shared_exponent_over_lengths_is_found_back():
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e4, 1e6, 5), [1e6, 2e6, 4e6]))
    floor = {1e6: 2.0, 2e6: 1.8, 4e6: 1.7}
    loss = [floor[b] + 30 * (b / 1e6) ** -0.1 * a**-0.4 for a, b in zip(n, d)]
    fit = fit_losses({"params": n, "tokens": d, "loss": loss}, law="params_at_tokens", bootstraps=20)
    assert fit.params["alpha"] == pytest.approx(0.4, rel=1e-3)
    assert fit.params["E@4e+06"] == pytest.approx(1.7, rel=1e-3)
    assert fit.params["A@2e+06"] == pytest.approx(30 * 2**-0.1, rel=1e-2)


def test_predictions_do_not_depend_on_the_unit_of_params(grid):
    fit = fit_losses(grid, law="chinchilla", bootstraps=20)
    other = fit_losses({**grid, "params": grid["params"] / 1e3}, law="chinchilla", bootstraps=20)
    assert other.predict(3e6, 3e11).loss == pytest.approx(fit.predict(3e9, 3e11).loss, rel=1e-6)


@pytest.mark.parametrize(
    "law", ["chinchilla", "tied", "interaction", "kaplan", "kaplan_no_floor", "joined", "data_constrained"]
)
def test_gradient_and_curvature_are_those_of_the_objective(grid, law):
    table = {**grid, "loss": grid["loss"] * np.exp(0.01 * np.sin(np.arange(25.0)))}
    if LAWS[law].repeats:
        table["unique_tokens"] = grid["tokens"] / 4
    bound, problem = setup(law, table)
    weights = np.linspace(0.5, 1.5, 25)
    theta = grid_starts(bound, problem, weights)[:1] + 0.01
    _, gradient, newton, _ = _expand(theta, problem, weights[None], problem.y[None])
    steps = 1e-6 * np.eye(theta.shape[1])
    slope = [(objective(theta + h, problem, weights) - objective(theta - h, problem, weights))[0] / 2e-6 for h in steps]
    gradient_at = lambda t: _expand(t, problem, weights[None], problem.y[None])[1][0]  # noqa: E731
    bend = [(gradient_at(theta + h) - gradient_at(theta - h)) / 2e-6 for h in steps]
    np.testing.assert_allclose(gradient[0], slope, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(newton[0], bend, rtol=1e-3, atol=1e-5 * np.abs(newton).max())


def test_chinchilla_lands_on_the_published_optimum(published):
    fit = fit_losses(published("chinchilla_epoch.csv"), law="chinchilla", bootstraps=20)
    assert fit.objective <= 0.00101828
    assert fit.convergence > 0.95
    for name, value in PUBLISHED.items():
        assert fit.params[name] == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(("epochs", "worth"), [(2, 1.968), (4, 3.726), (8, 6.624), (16, 10.58), (44, 15.45)])
def test_repeated_tokens_are_worth_what_was_published(epochs, worth):
    """D' / U at R* = 15.387756 (arXiv 2305.16264)."""
    g, _ = _worth(np.array([epochs - 1.0]), np.array([np.log(15.387756)]))
    assert np.exp(g[0]) * epochs == pytest.approx(worth, rel=1e-3)


def test_the_data_constrained_law_fits_better_than_published(published):
    fit = fit_losses(published("datablations.csv"), law="data_constrained", bootstraps=20)
    assert fit.objective <= 0.0158259


def test_repeated_tokens_are_told_apart_and_only_by_the_law_that_knows_them():
    n, d, epochs = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 3e10, 4), [1, 4, 16]))
    worth = np.exp(_worth(epochs - 1.0, np.log(15.0))[0])
    unique = d / epochs
    few = np.maximum(n / (0.051 * unique) - 1, 0)
    size = n * np.exp(_worth(few, np.log(5.0))[0])
    loss = 1.9 + 500 * size**-0.35 + 1500 * (d * worth) ** -0.35
    table = {"params": n, "tokens": d, "unique_tokens": unique, "loss": loss}
    fit = fit_losses(table, law="data_constrained", bootstraps=20)
    assert fit.params["R_tokens"] == pytest.approx(15.0, rel=0.02)
    assert fit.params["alpha"] == pytest.approx(0.35, rel=0.02)
    assert fit.predict(1e9, 3e10, unique_tokens=2e9).loss > fit.predict(1e9, 3e10).loss
    once = fit_losses(table, law="tied", bootstraps=20)
    assert once.params["alpha"] == pytest.approx(0.35, rel=0.1)
    assert any("left out 32" in w for w in once.warnings)
    with pytest.raises(Refusal, match="data_constrained"):
        once.predict(1e9, 3e10, unique_tokens=2e9)


def test_random_starts_all_land_on_the_published_optimum(published):
    bound, problem = setup("chinchilla", published("chinchilla_epoch.csv"))
    rng = np.random.default_rng(0)
    starts = project(bound, problem, np.ones(240), rng.uniform(0.05, 1.5, (100, 2)))
    _, values = polish(starts, problem, np.ones(240))
    assert (values <= 0.00101828).all()


def test_bootstrap_standard_errors_are_the_published_ones(published):
    bound, problem = setup("chinchilla", published("chinchilla_epoch.csv"))
    theta, values = polish(grid_starts(bound, problem, np.ones(240)), problem, np.ones(240))
    counts = np.random.default_rng(0).multinomial(240, np.full(240, 1 / 240), size=1500).astype(float)
    draws, _ = polish(np.tile(theta[values.argmin()], (1500, 1)), problem, counts)
    for name, error in zip(bound.names, bound.natural(draws).std(0)):
        assert error == pytest.approx(PUBLISHED_STDERR[name], rel=0.15)


def test_log_loss_is_the_formula(grid):
    bound, problem = setup("chinchilla", grid)
    theta = np.array([0.3, -1.0, -0.5, 0.4, 0.3])
    e, a, b, alpha, beta = bound.natural(theta)
    runs = read_runs(grid)
    expected = e + a * runs.params**-alpha + b * runs.tokens**-beta
    np.testing.assert_allclose(np.exp(bound.form.value(theta, problem.x)), expected, rtol=1e-12)
