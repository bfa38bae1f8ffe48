"""Runs that others logged, read back as a table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from guides import told
from mirror_support import plan_of
from support import proxytrain
from wandb_server import Run

from proxytrain import outcomes
from proxytrain.errors import RequestError
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


WRONG = [
    ("project", {}, "must be entity/project"),
    ("me/p", {"los": "x"}, "'los' is not a column"),
    ("me/p", {"loss": "eval/los"}, "they have data.tokens, eval/loss, lr, model.n_params"),
    ("me/p/none", {}, "none of 0 finished runs"),
]


@pytest.mark.parametrize(("path", "columns", "says"), WRONG)
def test_what_cannot_be_read_is_said(others, path, columns, says):
    with pytest.raises(RequestError, match=says):
        read_logged(path, columns)


def test_without_a_key_it_is_said_what_to_set():
    with pytest.raises(RequestError, match="set WANDB_API_KEY"):
        read_logged("me/p", {})
