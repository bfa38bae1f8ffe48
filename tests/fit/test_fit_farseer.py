"""Farseer's nine parameters: a known law comes back, small tables are refused, and what explodes is not predicted."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from fit_tables import chinchilla

from proxytrain.errors import Refusal
from proxytrain.fit import LAWS, fit_losses
from proxytrain.fit.losses.bound import bind
from proxytrain.fit.losses.estimate import Problem, _expand, grid_starts, objective
from proxytrain.fit.tables.table import read_runs

TRUE = {"a3": -0.35, "g3": 0.1, "b3": 2.6, "a2": -1.2, "g2": 0.12, "b2": 18.0, "a1": 0.02, "g1": 0.15, "b1": -1.45}


def farseer(n, d, a3, g3, b3, a2, g2, b2, a1, g1, b1):
    return np.exp(a3 * n**g3 + b3) + np.exp(a2 * n**g2 + b2) * d ** -np.exp(a1 * n**g1 + b1)


def mesh(sizes=8, lengths=8):
    return (v.ravel() for v in np.meshgrid(np.geomspace(1e8, 6e9, sizes), np.geomspace(2e9, 2e11, lengths)))


def test_a_noiseless_table_gives_the_nine_parameters_back():
    n, d = mesh()
    fit = fit_losses({"params": n, "tokens": d, "loss": farseer(n, d, **TRUE)}, law="farseer", bootstraps=20)
    for name, true in TRUE.items():
        assert fit.params[name] == pytest.approx(true, rel=1e-3)
    assert fit.predict(1e10, 4e11).loss == pytest.approx(farseer(1e10, 4e11, **TRUE), rel=1e-5)


def test_the_estimate_is_read_as_the_formula():
    n, d = mesh(5, 5)
    bound = bind(LAWS["farseer"], read_runs({"params": n, "tokens": d, "loss": farseer(n, d, **TRUE)}))
    theta = np.array([0.3, -1.0, -1.1, -0.2, -0.4, 0.05, 0.1, -0.2, 0.3])
    here = {"params": n, "tokens": d}
    expected = farseer(n, d, **dict(zip(bound.names, bound.natural(theta))))
    np.testing.assert_allclose(np.exp(bound.form.value(theta, bound.design(here))), expected, rtol=1e-9)


@pytest.mark.parametrize("g", [-0.3, 1e-9, 0.04])
def test_gradient_and_curvature_are_those_of_the_objective(g):
    n, d = mesh(5, 5)
    runs = read_runs({"params": n, "tokens": d, "loss": chinchilla(n, d) * np.exp(0.01 * np.sin(np.arange(25.0)))})
    bound, weights = bind(LAWS["farseer"], runs), np.linspace(0.5, 1.5, 25)
    problem = Problem(bound.form, bound.design(runs.columns), np.log(runs.loss), 1e-3, *bound.bounds)
    theta = grid_starts(bound, problem, weights)[:1] + 0.01
    theta[:, 6:] = g
    _, gradient, newton, _ = _expand(theta, problem, weights[None], problem.y[None])
    steps = 1e-6 * np.eye(9)
    slope = [(objective(theta + h, problem, weights) - objective(theta - h, problem, weights))[0] / 2e-6 for h in steps]
    gradient_at = lambda t: _expand(t, problem, weights[None], problem.y[None])[1][0]  # noqa: E731
    bend = [(gradient_at(theta + h) - gradient_at(theta - h)) / 2e-6 for h in steps]
    np.testing.assert_allclose(gradient[0], slope, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(newton[0], bend, rtol=1e-3, atol=1e-5 * np.abs(newton).max())


def test_exponents_that_do_not_bend_are_chinchillas_law():
    """At slopes of zero the data term does not depend on size."""
    n, d = mesh(5, 5)
    bound = bind(LAWS["farseer"], read_runs({"params": n, "tokens": d, "loss": chinchilla(n, d)}))
    theta = np.array([0.3, -1.0, -1.1, -0.2, 0.0, 0.0, 0.1, 0.0, 0.0])
    _, data = bound.form.logs(theta, bound.design({"params": n, "tokens": d}))
    slope = np.diff(data.reshape(5, 5)[:, 0]) / np.diff(np.log(d.reshape(5, 5)[:, 0]))
    np.testing.assert_allclose(data.reshape(5, 5), np.tile(data.reshape(5, 5)[:, :1], 5))
    np.testing.assert_allclose(slope, -np.exp(-1.1))


@pytest.mark.parametrize(("sizes", "lengths"), [(3, 8), (8, 3)])
def test_small_grids_are_refused(sizes, lengths):
    n, d = mesh(sizes, lengths)
    with pytest.raises(Refusal, match="4 lengths at each of 4 sizes"):
        fit_losses({"params": n, "tokens": d, "loss": chinchilla(n, d)}, law="farseer")


def test_where_it_explodes_it_does_not_predict():
    """On small noisy grids the bends run wild: a prediction is finite and falls with size and length, or is refused."""
    for seed in range(4):
        n, d = mesh(4, 4)
        loss = chinchilla(n, d) * np.exp(0.01 * np.random.default_rng(seed).standard_normal(16))
        fit = fit_losses({"params": n, "tokens": d, "loss": loss}, "farseer", bootstraps=20, allow_extrapolation=True)
        for factor in (10.0, 1e3, 1e5):
            with suppress(Refusal):
                p = fit.predict([6e9 * factor, 6.6e9 * factor], 2e11 * factor)
                assert np.isfinite([p.loss, p.low, p.high]).all()
                assert p.loss[1] <= p.loss[0]


def test_a_fit_that_rises_with_size_further_out_is_refused_there():
    """A floor that rises is planted in the estimate."""
    n, d = mesh(5, 5)
    fit = fit_losses({"params": n, "tokens": d, "loss": chinchilla(n, d)}, "farseer", bootstraps=20)
    theta = fit.main.theta.copy()
    theta[[3, 6]] = 0.05, 0.3
    wild = replace(fit, predictor=replace(fit.predictor, members=(replace(fit.main, theta=theta),)))
    wild = replace(wild, config=replace(wild.config, allow_extrapolation=True))
    with pytest.raises(Refusal, match="rises"):
        wild.predict(1e13, 1e13)
