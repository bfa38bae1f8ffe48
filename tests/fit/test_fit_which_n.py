"""Which parameters are N is a choice that is shown, never silent."""

import numpy as np
import pytest

from proxytrain.errors import RequestError
from proxytrain.fit import fit_losses


def test_the_column_that_is_n_is_said_and_the_others_too(grid):
    fit = fit_losses({**grid, "params_total": grid["params"] * 1.3}, law="tied", bootstraps=20)
    assert fit.data.params == "params"
    assert any("N is the column params (the table has params_total too" in line for line in fit.summary())


def test_the_only_count_of_params_is_n(grid):
    table = {"params_nonembedding": grid["params"], "tokens": grid["tokens"], "loss": grid["loss"]}
    fit = fit_losses(table, law="tied", bootstraps=20)
    assert fit.data.params == "params_nonembedding"
    assert "N is the column params_nonembedding" in fit.summary()


def test_of_two_counts_one_must_be_chosen(grid):
    n = grid["params"]
    table = {"params_total": n * 1.3, "params_nonembedding": n, "tokens": grid["tokens"], "loss": grid["loss"]}
    with pytest.raises(RequestError, match="params_total, params_nonembedding and no params"):
        fit_losses(table, law="tied")
    chosen = fit_losses(table, law="tied", columns={"params": "params_total"}, bootstraps=20)
    assert any("N is the column params_total (the table has params_nonembedding too" in s for s in chosen.summary())


def test_average_params_are_read_by_any_law(grid):
    """Dense runs have the average of their size; equal averages are predicted alike (arXiv 2501.12486)."""
    average = {"params_average": grid["params"], "tokens": grid["tokens"], "loss": grid["loss"]}
    dense, pruned = fit_losses(grid, law="chinchilla", bootstraps=20), fit_losses(average, "chinchilla", bootstraps=20)
    assert pruned.predict(2e9, 1e11).loss == dense.predict(2e9, 1e11).loss
    assert np.isclose(pruned.params["alpha"], 0.35, rtol=1e-3)
