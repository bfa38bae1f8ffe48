"""The best split of a budget: closed forms as oracles."""

import json

import numpy as np
import pytest
from fit_tables import chinchilla

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit import Curve, fit_losses, load_fit
from proxytrain.fit.losses.isoflop import by_isoflop


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


BEST = (0.35 * 480 / (0.37 * 2100)) ** (1 / 0.72)  # of the table's law: N_opt = BEST (C / 6)^(.37 / .72)


def isoflops(sd=0.002, seed=0, span=6.0):
    """Four budgets with nine sizes each around the best one of the known law."""
    rows = []
    for flops in (1e19, 6e19, 3e20, 2e21):
        best = BEST * (flops / 6) ** (0.37 / 0.72)
        for n in best * np.geomspace(1 / span, span, 9):
            rows.append((n, flops / 6 / n))
    n, d = np.array(rows).T
    loss = chinchilla(n, d) * np.exp(sd * np.random.default_rng(seed).standard_normal(len(n)))
    return {"params": n, "tokens": d, "loss": loss}


def test_the_envelope_of_curves_finds_the_planted_split():
    """Six sizes at a constant rate: the losses along them are those of the law at the tokens so far."""
    curves = []
    for n in np.geomspace(5e7, 5e9, 9):
        step = np.arange(50, 20001, 50)
        loss = chinchilla(n, step * 4e6) * np.exp(0.003 * np.random.default_rng(int(n)).standard_normal(len(step)))
        curves.append(Curve(lr=np.full(20000, 1e-3), step=step, loss=loss, params=float(n), tokens_per_step=4e6))
    fit = fit_losses(isoflops(), law="chinchilla", bootstraps=40)
    best = fit.optimal(1e22, by="envelope", curves=curves)
    true = BEST * (1e22 / 6) ** (0.37 / 0.72)
    assert best.params_interval[0] < true < best.params_interval[1]
    assert best.params == pytest.approx(true, rel=0.3)
    with pytest.raises(RequestError, match="tokens_per_step"):
        fit.optimal(1e22, by="envelope", curves=[Curve(lr=[1e-3] * 9, step=[3, 9], loss=[3.0, 2.0], params=1e6)])


@pytest.mark.parametrize("by", ["parametric", "isoflop", "envelope"])
def test_three_ways_find_the_planted_split(by):
    best = fit_losses(isoflops(), law="chinchilla", bootstraps=100).optimal(1e22, by=by)
    true = BEST * (1e22 / 6) ** (0.37 / 0.72)
    assert best.params_interval[0] < true < best.params_interval[1]
    assert best.params == pytest.approx(true, rel=0.5)
    assert best.exponent_interval[0] < 0.37 / 0.72 < best.exponent_interval[1]
    assert 6 * best.params * best.tokens == pytest.approx(1e22)


def test_the_lowest_points_of_exact_parabolas_lie_on_the_line():
    best = fit_losses(isoflops(sd=0.0, span=2.5), law="chinchilla", bootstraps=20).optimal(1e22, by="isoflop")
    assert best.params == pytest.approx(BEST * (1e22 / 6) ** (0.37 / 0.72), rel=0.03)
    assert best.exponent == pytest.approx(0.37 / 0.72, abs=0.01)


def test_the_interval_of_the_parabolas_covers():
    true = BEST * (1e22 / 6) ** (0.37 / 0.72)
    inside = 0
    for seed in range(40):
        table = isoflops(sd=0.006, seed=seed)
        best = by_isoflop(*table.values(), 1e22, 0.9, np.random.default_rng(0))
        inside += best.params_interval[0] < true < best.params_interval[1]
    assert 30 <= inside <= 40


def test_a_lowest_point_at_the_edge_is_no_split():
    """All sizes are smaller than the best one of their budget."""
    n, d = (np.array(v) for v in zip(*((n, c / 6 / n) for c in (1e19, 1e20, 1e21) for n in np.geomspace(1e6, 2e7, 7))))
    fit = fit_losses({"params": n, "tokens": d, "loss": chinchilla(n, d)}, law="chinchilla", bootstraps=20)
    with pytest.raises(Refusal, match="edge"):
        fit.optimal(1e21, by="isoflop")
    with pytest.raises(Refusal, match="smaller and larger"):
        fit.optimal(1e21, by="envelope")


def test_runs_without_budgets_in_common_have_no_parabolas():
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 4), [1e9, 7e9, 3e10, 2e11]))
    fit = fit_losses({"params": n, "tokens": d, "loss": chinchilla(n, d)}, law="chinchilla", bootstraps=20)
    assert "same FLOPs" in fit.allocation["isoflop"]


def test_the_ways_stand_side_by_side(tmp_path):
    fit = fit_losses(isoflops(), law="tied", bootstraps=40)
    lines = "\n".join(fit.summary())
    assert all(f"{way}: " in lines and "a parameter" in lines for way in ("parametric", "isoflop", "envelope"))
    fit.save(tmp_path / "fit.json")
    kept = json.loads((tmp_path / "fit.json").read_text())["allocation"]
    assert {"params", "tokens_per_param", "exponent_interval"} <= set(kept["isoflop"])
    assert load_fit(tmp_path / "fit.json").allocation == fit.allocation


def test_published_parabolas_have_the_published_exponent(published):
    """arXiv 2203.15556, table 2: .46 to .53 by parabolas (our interval of the digitised runs overlaps)."""
    fit = fit_losses(published("chinchilla_epoch.csv"), law="chinchilla", bootstraps=50)
    low, high = fit.allocation["isoflop"].exponent_interval
    assert low < 0.534
    assert high > 0.462


def test_over_training_is_tied_exponents_by_compute_and_ratio(grid):
    tied, other = (fit_losses(grid, law=name, bootstraps=20) for name in ("tied", "over_training"))
    assert other.objective == pytest.approx(tied.objective)
    e, a, b, eta = (other.params[k] for k in ("E", "a", "b", "eta"))
    n, d = 3e8, 2e10
    c, m = 6 * n * d, d / n
    assert e + (a * m**eta + b * m**-eta) * c**-eta == pytest.approx(tied.predict(n, d).loss, rel=1e-6)
    assert eta == pytest.approx(tied.params["alpha"] / 2)
