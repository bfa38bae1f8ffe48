"""Learning rates tried by a grid: a planted optimum is found, and a best rate at the edge is said to be one."""

import math

import pytest

from proxytrain.report.rates import rates
from proxytrain.report.row import Row


def row(width: int, lr: float, best: float, seed: int = 0) -> Row:
    loss = 2 + 20 / width + 0.05 * math.log(lr / best) ** 2
    return Row(
        id=f"{width:04x}{round(1e6 * lr):08x}{seed:04x}", width=width, depth=2, params=24 * width**2,
        params_total=30 * width**2, tokens=1_000_000, schedule="wsd", lr=lr, batch_tokens=1024, init_seed=seed,
        data_seed=seed, flops=1e9, status="done", loss=loss, val_se=0.001,
    )  # fmt: skip


def test_a_planted_optimum_is_found_at_every_size():
    tried = (0.004, 0.008, 0.016, 0.032, 0.064)
    found, why = rates([row(w, lr, 0.02) for w in (32, 48, 64) for lr in tried], None, None)
    assert found
    assert why == ""
    assert [c.row.width for c in found.cells] == [32, 48, 64]
    assert [c.best for c in found.cells] == pytest.approx([0.02] * 3, rel=0.03)
    assert not any(c.edge for c in found.cells)


def test_a_best_rate_at_the_edge_is_no_optimum():
    rows = [row(w, lr, 0.5) for w in (32, 48) for lr in (0.004, 0.008, 0.016)]
    found, why = rates(rows, None, None)
    assert found
    assert [(c.best, c.edge) for c in found.cells] == [(0.016, 1)] * 2
    assert found.law is None
    assert "no optimum lies inside what was tried" in why


def test_two_rates_are_no_grid_of_rates():
    assert rates([row(w, lr, 0.01) for w in (32, 48) for lr in (0.008, 0.016)], None, None) == (None, "")
