"""Runs that others logged, read back as a table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from guides import told
from mirror_support import plan_of
from support import proxytrain
from wandb_server import Run

from proxytrain.errors import RequestError
from proxytrain.fit import fit_optimum
from proxytrain.sweep import results as outcomes
from proxytrain.track.logged import read_logged


def logged(name: str, config: dict, summary: dict, state: str = "finished") -> Run:
    run = Run(name, state=state, group="g", job="train", config={k: {"value": v} for k, v in config.items()})
    run.files["wandb-summary.json"] = [json.dumps(summary)]
    return run


@pytest.fixture
def others(server):
    """A project of somebody else: 120 runs of a known law under keys of its own, one unfinished, one silent."""
    for i, (n, d) in enumerate((n, d) for n in np.geomspace(1e7, 1e9, 12) for d in np.geomspace(1e9, 1e11, 10)):
        loss = 1.8 + 480 * n**-0.35 + 2100 * d**-0.37
        config = {"model": {"n_params": n}, "data": {"tokens": d}, "lr": 3e-4}
        server.runs[f"r{i}"] = logged(f"r{i}", config, {"eval/loss": loss, "_step": 3})
    server.runs["running"] = logged("running", {"model": {"n_params": 1e7}}, {"eval/loss": 9.0}, "running")
    server.runs["silent"] = logged("silent", {"model": {"n_params": 1e7}}, {})
    return server


def test_a_fit_of_what_others_logged_finds_their_law(others, tmp_path):
    (line,) = told("fit wandb=")
    done = proxytrain(*line, "fit.law=chinchilla", cwd=tmp_path)
    assert "120 finished runs of entity/project, 1 left out" in done.stderr
    assert "alpha = 0.35" in done.stdout
    assert len((tmp_path / "fit_wandb.csv").read_text().splitlines()) == 121


def test_what_the_mirror_sent_comes_back_as_the_table_of_the_sweep(done, sync, server):
    sync(done)
    table, _ = read_logged("me/p/s", {})
    mine = outcomes.table(done, list(plan_of(done).runs.values()))
    for column in ("params", "tokens", "loss", "loss_se", "lr", "batch_tokens", "schedule", "init_seed", "data_seed"):
        assert dict(zip(table["run"], table[column])) == dict(zip(mine["run"], mine[column]))


@pytest.fixture
def tuned(server):
    """Runs over learning rates that decay: the summary has the last rate, the config the peak."""
    for i, (n, d, share) in enumerate(
        (n, d, s) for n in (1e7, 2e7, 4e7, 8e7) for d in (2e8, 4e8, 8e8) for s in (0.25, 0.5, 1, 2, 4)
    ):
        best = 6e-4 * (n / 4e7) ** -0.3
        loss = 1.8 + 400 * n**-0.34 + 1200 * d**-0.36 + 0.02 * np.log2(share) ** 2
        config = {"lr": best * share, "n_params": n, "tokens": d, "seed": i % 2, "optimizer": {"eps": 1e-8}}
        server.runs[f"r{i}"] = logged(f"r{i}", config, {"val/loss": loss, "lr": max(0.1 * best * share, 6e-5)})
    return server


COLUMNS = {"params": "n_params", "loss": "val/loss"}


def test_settings_are_those_of_the_config(tuned):
    table, told = read_logged("me/p", COLUMNS)
    lr = {run: tuned.runs[run].values["lr"] for run in table["run"]}
    assert dict(zip(table["run"], table["lr"])) == lr
    assert (
        "lr differs between config and summary in 60 runs (such as 0.0002274 and 6e-05): the config's was read" in told
    )
    optimum = fit_optimum({c: v for c, v in table.items() if c != "init_seed"})
    assert optimum.laws["lr"].exponents["params"] == pytest.approx(-0.3, abs=0.02)


def test_the_seed_is_read_under_its_usual_names(tuned):
    table, _ = read_logged("me/p", COLUMNS)
    assert set(table["init_seed"]) == {0, 1}


def test_config_keys_that_differ_are_settings(tuned):
    for i, run in enumerate(list(tuned.runs.values())):
        run.config["optimizer"]["value"]["weight_decay"] = 0.1 * (i % 3)
        run.config["notes"] = {"value": "the same"}
    table, told = read_logged("me/p", COLUMNS)
    assert "config keys that differ: optimizer.weight_decay" in told
    assert "notes" not in table
    assert sorted(set(table["optimizer.weight_decay"])) == [0.0, 0.1, 0.2]


@pytest.mark.parametrize("loss", ["NaN", "Infinity", None])
def test_runs_without_a_finite_loss_are_left_out_and_counted(tuned, loss):
    for name in ("r3", "r4"):
        tuned.runs[name].files["wandb-summary.json"] = [json.dumps({"val/loss": loss} if loss else {})]
    table, told = read_logged("me/p", COLUMNS)
    assert len(table["loss"]) == 58
    assert "58 finished runs of me/p, 2 left out (2 without a finite loss)" in told


def test_a_run_that_lacks_a_key_of_the_others_is_left_out_and_the_key_stays(tuned):
    del tuned.runs["r5"].config["lr"]
    tuned.runs["r5"].files["wandb-summary.json"] = [json.dumps({"val/loss": 3.0})]
    table, told = read_logged("me/p", COLUMNS)
    assert len(table["lr"]) == 59
    assert "1 left out for want of a value that the others have" in told


WRONG = [
    ("project", {}, "must be entity/project"),
    ("me/p", {"los": "x"}, "'los' is not a column"),
    ("me/p", {"loss": "eval/los"}, "they have data.tokens, eval/loss, lr, model.n_params"),
    ("me/p/none", {}, "it has no finished run"),
]


@pytest.mark.parametrize(("path", "columns", "says"), WRONG)
def test_what_cannot_be_read_is_said(others, path, columns, says):
    with pytest.raises(RequestError, match=says):
        read_logged(path, columns)


def test_without_a_key_it_is_said_what_to_set():
    with pytest.raises(RequestError, match="set WANDB_API_KEY"):
        read_logged("me/p", {})
