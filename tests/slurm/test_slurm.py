"""Sweeps on a real SLURM: arrays of workers, failures, warnings and requeues, cancelling and submitting again."""

from __future__ import annotations

import json
import os

import pytest
from guides import told
from slurm_support import (
    LONG,
    ONE,
    SHORT,
    ask,
    empty,
    goes_on,
    held,
    job_field,
    logs,
    saved,
    status,
    submit,
    until,
    workplace,
)
from support import proxytrain

from proxytrain.cli.main import main
from proxytrain.launch import slurm

HOSTILE = "a b'c\"d;$(touch pwned)`touch pwned`%j#&"


def test_an_array_of_workers_trains_a_sweep_and_a_job_after_it_writes_the_page(cluster, tmp_path, corpora):
    home = tmp_path / HOSTILE
    sweep = workplace(home, corpora)
    mine = home / "my conf" / "experiment" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text(
        "# @package _global_\n# Mine.\nlaunch: {finish: true, time: 5, setup: 'export SEEN=setup; echo $SEEN'}\n"
    )
    asked = [*SHORT, "--config-dir", "my conf", "experiment=mine", "launch=slurm", "launch.workers=2"]
    out = proxytrain("submit", *asked, cwd=home).stdout
    array = out.split("job ")[1].split(":")[0]
    assert (sweep / "plan.json").exists()
    until(empty(sweep), "the sweep")
    assert {p.name for p in sweep.glob("slurm/*_*.log")} == {f"{array}_0.log", f"{array}_1.log"}, ask("squeue")
    assert logs(sweep).count("setup\n") == 3
    assert "s: 4 done" in status(home)
    assert (sweep / "report.html").exists(), logs(sweep)
    assert not list(tmp_path.rglob("pwned"))
    assert not list(tmp_path.rglob("*.tmp"))

    again = proxytrain("submit", *asked, cwd=home).stdout
    assert "all 4 runs are done, nothing to submit" in again
    assert not slurm.jobs(sweep)


@pytest.mark.slow
def test_a_warned_worker_saves_and_is_requeued_and_a_cancelled_sweep_goes_on(cluster, tmp_path, corpora):
    sweep = workplace(tmp_path, corpora)
    job = submit(*LONG, cwd=tmp_path)
    until(lambda: held(sweep), "training")
    shown = status(tmp_path)
    assert f"jobs: {job}_0 running on {ask('hostname').strip()}" in shown
    assert f"on {ask('hostname').strip()} (job {job}_0), attempt 1" in shown

    ask("scancel", "--signal=USR1", "--batch", job)  # what SLURM sends before the time limit
    until(lambda: not held(sweep), "leaving")
    first = saved(sweep)
    assert first > 0
    assert "is requeued" in until(lambda: logs(sweep) if "requeued" in logs(sweep) else "", "the requeue")
    until(lambda: job_field(f"{job}_0", "Restarts") == "1" and held(sweep), "the second life")

    assert f"cancelled {job}" in proxytrain("cancel", "sweep.name=s", cwd=tmp_path).stdout
    until(empty(sweep), "cancelling")
    assert not held(sweep)
    assert saved(sweep) > first
    assert "none in the queue" in status(tmp_path)
    assert "no job in the queue" in proxytrain("cancel", "sweep.name=s", cwd=tmp_path).stdout

    plan = (sweep / "plan.json").read_bytes()
    first, second = submit(*LONG, cwd=tmp_path), submit(*LONG, cwd=tmp_path)
    assert first != second
    assert (sweep / "plan.json").read_bytes() == plan
    assert goes_on(sweep, tmp_path)


def test_a_failed_run_shows_and_its_worker_does_not(cluster, tmp_path, corpora):
    sweep = workplace(tmp_path, corpora)
    asked = [*SHORT, "sweep.grids=[{model.width:[16,24],tokens:8192}]", *ONE]
    proxytrain("plan", *asked, cwd=tmp_path)
    plan = json.loads((sweep / "plan.json").read_text())
    width = {name: recipe["model"]["width"] for name, recipe in plan["recipes"].items()}
    node = next(m[0] for p in plan["packs"] for m in p["members"] if width[m[0]["recipe"]] == 24)
    blocked = tmp_path / "runs" / "segments" / node["lineage"]
    blocked.parent.mkdir()
    blocked.write_text("a file where a folder must go")

    job = submit(*asked, cwd=tmp_path)
    until(empty(sweep), "the sweep")
    assert job_field(f"{job}_0", "JobState") == "COMPLETED"
    assert "1 done, 1 failed" in status(tmp_path, check=1)
    blocked.unlink()
    assert "proxytrain retry sweep.name=s" in proxytrain("submit", *asked, cwd=tmp_path, check=1).stderr
    proxytrain("retry", "sweep.name=s", cwd=tmp_path)
    submit(*asked, cwd=tmp_path)
    until(empty(sweep), "the second try")
    assert "s: 2 done" in status(tmp_path)


@pytest.mark.slow
def test_where_requeues_are_refused_a_warned_worker_ends_cleanly_and_submit_goes_on(strict_cluster, tmp_path, corpora):
    sweep = workplace(tmp_path, corpora)
    refused = proxytrain("submit", *LONG, "launch.finish=true", cwd=tmp_path, check=2)
    assert "dependencies are not allowed here" in refused.stderr
    until(empty(sweep), "the array, which must not stay when its last job is refused")

    job = submit(*LONG, cwd=tmp_path)
    until(lambda: held(sweep), "training")
    ask("scancel", "--signal=USR1", "--batch", job)
    until(empty(sweep), "leaving")
    assert "not requeued: Requested operation is presently disabled" in logs(sweep)
    assert job_field(f"{job}_0", "JobState") == "COMPLETED"
    assert "waiting" in status(tmp_path)
    submit(*LONG, cwd=tmp_path)
    assert goes_on(sweep, tmp_path)


def test_the_lines_of_the_guides_submit_follow_and_cancel(cluster, tmp_path, corpora):
    sweep = workplace(tmp_path, corpora)
    site = [
        "launch.partition=normal",
        "launch.gpus=null",
        "launch.time=5",
        "launch.sbatch_args={account:abc,hold:true}",
    ]
    for line in told("submit experiment=quickstart"):
        assert "job " in proxytrain(*line, *SHORT, *site, cwd=tmp_path).stdout
    assert len({job.array for job in slurm.jobs(sweep)}) >= 2
    (follow,), (cancel,) = told("status sweep.name=quickstart"), told("cancel sweep.name=quickstart")
    assert "4 waiting" in proxytrain(*follow, "sweep.name=s", cwd=tmp_path).stdout
    assert "cancelled" in proxytrain(*cancel, "sweep.name=s", cwd=tmp_path).stdout
    until(empty(sweep), "cancelling")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("launch.partition=nope", "launch.partition=nope: sbatch refuses: invalid partition specified: nope"),
        ("launch.time=2-0", "launch.time=2-0: sbatch refuses: "),
        ("launch.gpus=h100:1", "launch.gpus=h100:1: sbatch refuses: "),
        ("launch.sbatch_args={constraint:x}", "launch=slurm: sbatch refuses: "),
    ],
)
def test_what_sbatch_refuses_is_one_line_and_nothing_is_queued(
    cluster, tmp_path, corpora, monkeypatch, capsys, asked, said
):
    sweep = workplace(tmp_path, corpora)
    monkeypatch.chdir(tmp_path)
    assert main(["submit", *SHORT, *ONE, asked, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    if "partition" in asked:
        assert "partitions are high, low, normal" in error
    assert not slurm.jobs(sweep)


def test_an_edited_script_is_kept_and_counts_and_a_worker_that_is_broken_fails_as_a_job(cluster, tmp_path, corpora):
    sweep = workplace(tmp_path, corpora)
    asked = [*SHORT, *ONE, "launch.sbatch_args={hold:true}"]
    first = submit(*asked, cwd=tmp_path)
    script = sweep / "slurm" / "work.sh"
    edited = script.read_text() + "# mine\n"
    script.write_text(edited)
    by_hand = ask("sbatch", "--parsable", str(script)).strip()
    assert {job.array for job in slurm.jobs(sweep)} == {first, by_hand}
    submit(*asked, cwd=tmp_path)
    assert script.with_name("work.sh~").read_text() == edited
    assert os.access(script, os.X_OK)

    plan = (sweep / "plan.json").read_text()
    (sweep / "plan.json").write_text("{}")
    ask("scontrol", "release", by_hand)
    until(lambda: by_hand not in {job.array for job in slurm.jobs(sweep)}, "the broken worker")
    assert (job_field(f"{by_hand}_0", "JobState"), job_field(f"{by_hand}_0", "ExitCode")) == ("FAILED", "2:0")
    assert "plan.json: format None" in logs(sweep)

    (sweep / "plan.json").write_text(plan)
    assert proxytrain("cancel", "sweep.name=s", cwd=tmp_path).stdout.count(",") == 1
    until(empty(sweep), "cancelling")
