"""A store that the code wrote before its packages were restructured is read: the same ids, losses and curves.

`tests/data/store_v1` holds nine runs as their sweep left them, without their states, their corpus and their fit. The
corpus is made again from the same text, so the ids of the runs depend on today's reading of it.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import proxytrain

from proxytrain.monitor.console import Console
from proxytrain.plan.parts import unfinished
from proxytrain.report.facts import collect
from proxytrain.sweep import main as job
from proxytrain.sweep.request import Request, request

STORED = Path(__file__).parents[1] / "data" / "store_v1"
RESULTS = {path.parent.name: json.loads(path.read_text()) for path in STORED.glob("runs/*/result.json")}
SWEEP = [
    "sweep.name=old",
    "sweep.grids=[{model:{width:[8,16,24]},tokens:[3072,6144,12288]}]",
    "sweep.target={model:{width:32},tokens:16384}",
    "data=files",
    "data.tokenizer=bytes",
    "data.val_fraction=0.2",
    "data.val_tokens=2048",
    "model.width=16",
    "model.head_size=8",
    "model.context=32",
    "parametrization.base_width=16",
    "schedule=wsd",
    "lr=0.004",
    "batch_tokens=512",
    "warmup=1024",
    "train.device=cpu",
    "train.eval_every=4096",
    "train.eval_tokens=1024",
    "train.keep_weights=none",
    "fit.bootstraps=40",
    "launch.workers=1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the sweep was run: its text, and its store as it is kept."""
    here = tmp_path_factory.mktemp("old")
    shutil.copytree(STORED, here / "runs")
    (here / "text").mkdir()
    for j in range(60):
        lines = (f"{i} squared is {i * i}, and its cube ends in {i**3 % 1000}.\n" for i in range(20 * j, 20 * j + 20))
        (here / "text" / f"{j}.txt").write_text("".join(lines))
    return here


@pytest.fixture(scope="module")
def asked(folder: Path) -> Request:
    here = [f"data.files=[{folder}/text/*.txt]", f"store={folder}/runs"]
    return request([*SWEEP, *here], None, Console(quiet=True))


def test_the_runs_of_the_request_have_the_ids_of_the_store(asked):
    assert set(asked.ids) == set(RESULTS)


def test_the_frozen_plan_is_kept_and_nothing_is_left_to_train(asked):
    made = job.plan(asked)
    assert set(made.runs) == set(RESULTS)
    assert len(made.packs) == 6  # of the file: a plan made anew would have none
    assert unfinished(made, asked.store) == []


def test_status_counts_all_runs_as_done(folder):
    answer = json.loads(proxytrain("status", "--json", "sweep.name=old", cwd=folder).stdout)
    assert answer["old"]["runs"] == {i: {"state": "done", "loss": r["final_loss"]} for i, r in RESULTS.items()}


@pytest.mark.parametrize("run_id", RESULTS)
def test_a_curve_goes_from_the_first_update_to_the_end_of_the_run(asked, run_id):
    curve, tokens = asked.store.curve(run_id), RESULTS[run_id]["tokens"]
    assert np.array_equal(curve.tokens, np.arange(512, tokens + 1, 512))
    assert np.isfinite([curve.lr, curve.loss, curve.grad_norm]).all()


def test_telemetry_is_read_by_its_names(asked):
    longest = [i for i, r in RESULTS.items() if r["tokens"] == 12288]
    for run_id in longest:
        seen = asked.store.curve(run_id).telemetry
        assert len(seen["tokens"]) > 0
        assert np.isfinite([seen["log_z"], seen["grad_rms.mlp"], seen["under_eps.readout"]]).all()


def test_fit_reads_all_final_losses_to_the_last_digit(folder):
    told = proxytrain("fit", *SWEEP, "data.files=[text/*.txt]", cwd=folder).stdout
    assert "9 of 9 runs" in told
    with (folder / "runs/sweeps/old/losses.csv").open() as file:
        assert {r["run"]: float(r["loss"]) for r in csv.DictReader(file)} == {
            i: r["final_loss"] for i, r in RESULTS.items()
        }


def test_predict_gives_the_number_that_was_given_then(folder):
    said = proxytrain("predict", "--json", *SWEEP, "data.files=[text/*.txt]", cwd=folder).stdout
    assert json.loads(said)["prediction"]["loss"] == pytest.approx(3.5104372, rel=1e-4)


def test_the_facts_of_the_report_are_whole(asked):
    facts = collect(asked)
    assert {row.id: (row.status, row.loss) for row in facts.rows} == {
        i: ("done", r["final_loss"]) for i, r in RESULTS.items()
    }
    assert [what for what, _ in facts.missing if what in ("fit", "prediction", "runs")] == []
    assert len(facts.lines) == 9
