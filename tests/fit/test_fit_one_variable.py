"""A power plus a constant in one variable: of tables that know only that, and through the best runs of fuller ones."""

import numpy as np
import pytest
from fit_tables import chinchilla

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit import fit_losses, load_fit
from proxytrain.fit.losses.frontier import lower_hull


def power(x, E=1.7, A=30.0, alpha=0.2):
    return E + A * np.asarray(x) ** -alpha


@pytest.mark.parametrize(("column", "low"), [("params", 1e6), ("tokens", 1e8), ("flops", 1e16)])
def test_a_table_with_one_column_is_fitted_and_predicted_in_it(column, low, tmp_path):
    x = np.geomspace(low, low * 1e3, 9)
    fit = fit_losses({column: x, "loss": power(x)}, bootstraps=20)
    assert fit.main.bound.law.name == f"power_in_{column}"
    assert fit.params["alpha"] == pytest.approx(0.2, rel=1e-3)
    p = fit.predict(**{column: low * 1e4})
    assert p.loss == pytest.approx(power(low * 1e4), rel=1e-4)
    assert p.gap == pytest.approx(10.0)
    fit.save(tmp_path / "fit.json")
    assert load_fit(tmp_path / "fit.json").predict(**{column: low * 1e4}) == p
    assert list(fit.runs)[:3] == ["row", column, "loss"]


def test_the_other_columns_are_not_asked_for():
    x = np.geomspace(1e8, 1e11, 9)
    fit = fit_losses({"tokens": x, "loss": power(x)}, law="power_in_tokens", bootstraps=20)
    with pytest.raises(RequestError, match="knows tokens alone"):
        fit.predict(params=1e9, tokens=1e12)
    with pytest.raises(Refusal, match="chinchilla needs the column params"):
        fit_losses({"tokens": x, "loss": power(x)}, law="chinchilla")


def test_flops_stand_in_for_the_length(grid):
    other = {"params": grid["params"], "flops": 6 * grid["params"] * grid["tokens"], "loss": grid["loss"]}
    first, second = (fit_losses(t, law="chinchilla", bootstraps=20) for t in (grid, other))
    assert second.params["beta"] == pytest.approx(first.params["beta"], rel=1e-6)
    assert second.predict(params=2e9, flops=6 * 2e9 * 1e11).loss == pytest.approx(first.predict(2e9, 1e11).loss)


def test_along_one_ratio_compute_is_the_variable():
    n = np.geomspace(1e7, 1e9, 7)
    table = {"params": n, "tokens": 20 * n, "loss": chinchilla(n, 20 * n, alpha=0.36, beta=0.36)}
    with pytest.raises(Refusal, match="power_in_flops"):
        fit_losses(table, law="chinchilla")
    fit = fit_losses(table, law="power_in_flops", bootstraps=20)
    assert fit.params["alpha"] == pytest.approx(0.18, rel=0.01)


def test_of_two_variables_the_best_runs_of_one_are_taken(grid):
    fit = fit_losses(grid, law="power_in_params", bootstraps=20)
    assert len(fit.runs["row"]) == 5
    assert any("kept the 5 of 25" in w for w in fit.warnings)
    assert fit.params["alpha"] == pytest.approx(0.35, rel=0.01)  # the longest run of each size: one length


def test_the_hull_is_the_falling_part_below_all_points():
    x, y = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([4.0, 3.5, 1.0, 0.5, 0.9])
    assert lower_hull(x, y).tolist() == [0, 2, 3]
