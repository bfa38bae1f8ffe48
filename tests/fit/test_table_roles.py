"""What columns and rows of a table are taken for: settings, seeds, copies, checkpoints, splits, diverged runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted import TARGET, checkpoints, planted, runs, weight_decays

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit import Fit, fit_losses, fit_optimum
from proxytrain.fit.tables.table import read_runs


def fit(table, **options) -> Fit:
    return fit_losses(table, **{"law": "chinchilla", "bootstraps": 20} | options)


def holds(found: Fit) -> bool:
    """Whether the interval at the target holds the planted loss, and is no wider than that of clean runs."""
    answer, clean = found.predict(**TARGET), fit(runs()).predict(**TARGET)
    inside = answer.low <= planted(**dict(zip("nd", TARGET.values()))) <= answer.high
    return bool(inside and answer.high - answer.low < 2 * (clean.high - clean.low))


def test_a_column_in_which_runs_of_one_seed_differ_is_a_setting():
    found = fit(weight_decays())
    assert found.data.fitted == 40
    assert any("weight_decay (of 3 values): 0.1 at 20 of 20; left out 80 of 120 runs" in w for w in found.warnings)
    assert found.noise.run < 0.004
    assert holds(found)


def test_seeds_that_differ_between_settings_do_not_hide_them():
    table = pd.concat([runs((0, 1)).assign(wd=0.0), runs((2, 3), seed=1).assign(wd=0.1)])
    table["loss"] *= np.where(table.wd == 0.0, 1.05, 1.0)
    found = fit(table)
    assert any("wd (of 2 values): 0.1 at 20 of 20" in w for w in found.warnings)
    assert holds(found)


def test_a_column_that_changes_only_with_the_seed_is_reported():
    table = runs().assign(wd=lambda t: 0.1 * t.init_seed)
    table["loss"] *= np.where(table.init_seed == 1, 1.05, 1.0)
    warnings = fit(table).warnings
    assert any("wd: changes only together with the seed" in w for w in warnings)
    assert any("seed noise of 2.7% is unusual" in w for w in warnings)


LOGGED = {
    "index": lambda t: np.arange(len(t)),
    "Name": lambda t: [f"golden-{i}" for i in range(len(t))],
    "Created": lambda t: [f"2024-01-0{1 + i // 8}" for i in range(len(t))],
    "Runtime": lambda t: np.arange(len(t)) % 7,
    "accuracy": lambda t: np.round(1 / t.loss, 2),
    "host": lambda t: np.where(np.arange(len(t)) % 3, "a", "b"),
    "State": lambda t: "finished",
    "width": lambda t: np.sqrt(t.params / 12),
}


@pytest.mark.parametrize("seeded", [True, False])
@pytest.mark.parametrize("column", LOGGED)
def test_what_loggers_add_is_no_setting(column, seeded):
    clean = runs() if seeded else runs().drop(columns="init_seed")
    found, expected = fit(clean.assign(**{column: LOGGED[column]})), fit(clean)
    assert found.data.fitted == 40
    assert found.predict(**TARGET).loss == pytest.approx(expected.predict(**TARGET).loss, rel=1e-9)
    assert found.noise.run == pytest.approx(expected.noise.run, rel=1e-9)


@pytest.mark.parametrize("name", ["seed", "replicate", "Init_Seed"])
def test_other_names_of_the_seed_are_read(name):
    assert fit(runs().rename(columns={"init_seed": name})).noise == fit(runs()).noise


def test_rows_of_one_seed_with_other_losses_are_named():
    twin = runs().iloc[[39]].assign(loss=lambda t: 1.08 * t.loss)
    with pytest.raises(RequestError, match=r"rows 40 \(3.046\d*\), 41 \(3.289\d*\) have one seed, size and length"):
        fit(pd.concat([runs(), twin]))
    with pytest.raises(RequestError, match="40 such groups of rows"):
        fit(weight_decays().query("weight_decay < 0.5").drop(columns="weight_decay"))


def test_runs_that_have_not_finished_are_left_out_by_their_state():
    twin = runs().iloc[[39]].assign(loss=lambda t: 1.08 * t.loss, State="crashed")
    found = fit(pd.concat([runs().assign(State="finished"), twin]))
    assert any("left out 1 runs that have not finished (column State, rows 41)" in w for w in found.warnings)
    assert found.predict(**TARGET).loss == fit(runs()).predict(**TARGET).loss


@pytest.mark.parametrize("decimals", [2, 3, 4])
@pytest.mark.parametrize("seeds", [(0, 1), (0,)])
def test_a_second_export_that_was_rounded_is_no_repeat(decimals, seeds):
    clean = runs(seeds) if len(seeds) > 1 else runs(seeds).drop(columns="init_seed")
    found = fit(pd.concat([clean, clean.round({"loss": decimals})]))
    assert any(f"left out {len(clean)} rows that repeat another run" in w for w in found.warnings)
    assert found.predict(**TARGET) == fit(clean).predict(**TARGET)


LONG = {
    "split": {"train": 0.97, "val": 1.0},
    "metric": {"loss": 1.0, "accuracy": 0.1},
    "domain": {"c4": 1.0, "code": 0.6},
    "kind_of_text": {"train": 0.97, "validation": 1.0},
}


@pytest.mark.parametrize(
    ("column", "chosen"), [("split", "val"), ("metric", "loss"), ("domain", "c4"), ("kind_of_text", "validation")]
)
def test_of_several_rows_of_one_run_it_is_asked_which(column, chosen):
    table = pd.concat(
        [runs().assign(**{column: v, "loss": lambda t, f=f: t.loss * f}) for v, f in LONG[column].items()]
    )
    with pytest.raises(RequestError, match=rf"in column {column}\. Choose one, as fit\.where=\{{{column}: {chosen}\}}"):
        fit(table)
    found = fit(table, where={column: chosen})
    assert found.predict(**TARGET) == fit(runs()).predict(**TARGET)
    assert f"rows: 40 of 80, those with {column}={chosen}" in found.summary()


@pytest.mark.parametrize(
    ("where", "says"),
    [({"split": "dev"}, "no row of table has it; there are train, val"), ({"splt": "val"}, "did you mean split")],
)
def test_a_choice_that_no_row_has_is_refused(where, says):
    table = pd.concat([runs().assign(split="train"), runs().assign(split="val")])
    with pytest.raises(RequestError, match=says):
        fit(table, where=where)


def test_numbers_are_chosen_by_value():
    assert len(read_runs(weight_decays(), where={"weight_decay": "1e-1"})) == 40


@pytest.mark.parametrize(
    "table",
    [
        checkpoints(),
        checkpoints().drop(columns=["model", "step"]),
        checkpoints(10).drop(columns="model"),
        checkpoints(12, np.geomspace).rename(columns={"model": "run_id"}),
    ],
    ids=["model and step", "nothing but evenly spaced tokens", "step", "run_id, log-spaced"],
)
def test_of_checkpoints_only_the_last_of_each_run_is_fitted(table):
    found = fit(table, law="power_in_flops")
    assert found.data.fitted == 5
    assert any(
        "checkpoints of 5 runs" in w and "only the last row of each is a finished run" in w for w in found.warnings
    )
    n, d = 400e6, 80 * 400e6
    answer = found.predict(flops=6 * n * d)
    assert answer.low < planted(n, d) < answer.high
    with pytest.raises(Refusal, match=r"vary apart.*only the last row of each"):
        fit(table)


def test_checkpoints_are_all_fitted_by_name():
    assert fit(checkpoints(), rows="runs").data.fitted == 200
    found = fit(checkpoints(), rows="checkpoints")
    assert found.data.fitted == 200
    assert found.noise.df < fit(checkpoints(), rows="runs").noise.df  # rows of one run are not independent


def test_runs_before_their_planned_length_are_left_out():
    table = checkpoints(total_steps=lambda t: np.where(t.params == 160e6, 20_000, 10_000))
    found = fit(table, law="power_in_flops")
    assert found.data.fitted == 4
    assert any("left out 1 runs that ended before their planned length (rows 200)" in w for w in found.warnings)


def test_steps_that_rise_in_log_spaced_rows_are_a_question():
    found = fit(checkpoints(12, np.geomspace))
    assert any("column step rises within runs of one size" in w for w in found.warnings)
    assert fit(checkpoints(12, np.geomspace), rows="last", law="power_in_flops").data.fitted == 5


def test_finished_runs_of_evenly_spaced_lengths_are_no_checkpoints():
    table = runs(lengths=(0.2e9, 0.4e9, 0.6e9, 0.8e9, 1.0e9)).assign(
        steps=lambda t: t.tokens / 1e6, model=lambda t: t.params
    )
    found = fit(table)
    assert found.data.fitted == 50
    assert not found.warnings


def test_rows_that_are_named_as_runs_are_no_checkpoints():
    found = fit(checkpoints(run=lambda t: [f"r{i}" for i in range(len(t))]))
    assert found.data.fitted == 200


def test_a_run_that_diverged_with_a_finite_loss_is_named():
    table = runs()
    table.loc[7, "loss"] = 7.6
    with pytest.raises(
        Refusal, match=r"1 of 40 losses lie far off their neighbours: row 8 \(7.6, 1.88 times 4.05\d?\)"
    ):
        fit(table)
    dropped, kept = fit(table, outliers="drop"), fit(table, outliers="keep")
    assert dropped.data.fitted == 39
    assert holds(dropped)
    assert kept.data.fitted == 40
    assert all(any("row 8 (7.6" in w for w in f.warnings) for f in (dropped, kept))


def test_the_corner_of_a_steep_surface_is_no_outlier():
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e8, 6e9, 8), np.geomspace(2e9, 2e11, 8)))
    loss = np.exp(2.6 - 0.35 * n**0.1) + np.exp(18 - 1.2 * n**0.12) * d ** -np.exp(0.02 * n**0.15 - 1.45)
    found = fit({"params": n, "tokens": d, "loss": loss})  # the law of Farseer (arXiv 2506.10972)
    assert found.data.fitted == 64


def test_runs_whose_loss_is_no_number_are_left_out_if_asked():
    table = runs()
    table.loc[7, "loss"] = np.nan
    with pytest.raises(RequestError, match=r"loss in row 8 is nan.*fit.outliers=drop leaves out"):
        fit(table)
    assert fit(table, outliers="drop").data.fitted == 39


def test_rates_far_from_the_best_are_no_outliers():
    table = pd.concat([runs().assign(lr=1e-3), runs(seed=1).assign(lr=1e-1, loss=lambda t: 2 * t.loss)])
    found = fit(table)
    assert found.data.fitted == 40
    assert any("lr (of 2 values): 0.001 at 20 of 20" in w for w in found.warnings)


def test_an_optimum_is_not_fitted_over_two_settings():
    n, d, lr = (g.ravel() for g in np.meshgrid([1e6, 4e6, 16e6], [2e7, 8e7], np.geomspace(1e-4, 1e-1, 13)))
    loss = 2 + 0.02 * (np.log(lr) - np.log(30 * n**-0.5)) ** 2
    once = pd.DataFrame({"params": n, "tokens": d, "lr": lr, "loss": loss})
    both = pd.concat([once.assign(decay=0.0, loss=loss + 0.3), once.assign(decay=0.1)])
    with pytest.raises(RequestError, match=r"differ in decay\. Choose one, as fit\.where=\{decay: "):
        fit_optimum(both)
    chosen, alone = fit_optimum(both, where={"decay": 0.1}), fit_optimum(once)
    assert chosen.laws["lr"].coefficients == alone.laws["lr"].coefficients


def test_what_was_read_as_what_is_said_first():
    table = (
        weight_decays().rename(columns={"params": "n_params", "loss": "val/loss"}).assign(Name=lambda t: range(len(t)))
    )
    found = fit(table, columns={"params": "n_params", "loss": "val/loss"})
    assert found.summary()[2:4] == [
        "read: params from n_params, tokens, loss from val/loss; seeds: init_seed; settings: weight_decay",
        "not used: Name (a value of its own in each row)",
    ]
