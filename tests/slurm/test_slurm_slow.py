"""What takes SLURM a minute, or the sweep: time limits, preemption, workers that are killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest
from slurm_support import (
    LONG,
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

from proxytrain.plan import freeze

pytestmark = pytest.mark.slow


def test_a_time_limit_is_met_by_saving_and_the_worker_goes_on_after_a_requeue(cluster, tmp_path, corpora):
    sweep = workplace(tmp_path, corpora)
    long = [*LONG, "train.checkpoint_seconds=600"]  # the only save is that at the warning
    job = submit(*long, "launch.time=1", "launch.warn_seconds=30", cwd=tmp_path)
    until(lambda: held(sweep), "training")
    assert saved(sweep) == 0
    until(lambda: "is requeued" in logs(sweep), "the warning")
    first = saved(sweep)
    assert first > 0
    until(lambda: logs(sweep).count("is requeued") == 2, "the second warning")
    assert saved(sweep) > first
    assert int(job_field(f"{job}_0", "Restarts")) >= 1
    assert "TIME LIMIT" not in logs(sweep)
    proxytrain("cancel", "sweep.name=s", cwd=tmp_path)
    until(empty(sweep), "cancelling")


def test_a_preempted_worker_saves_and_goes_on_when_the_other_is_done(cluster, tmp_path, corpora):
    sweep = workplace(tmp_path, corpora)
    asked = [*LONG, "train.checkpoint_seconds=600", "launch.partition=low"]
    job = submit(*asked, cwd=tmp_path)
    until(lambda: held(sweep), "training")
    ask("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    until(lambda: not held(sweep), "leaving")
    assert saved(sweep) > 0
    assert goes_on(sweep, tmp_path)
    assert job_field(f"{job}_0", "Restarts") == "1"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_s_death_costs_nothing_but_time(cluster, tmp_path, corpora, number):
    sweep = workplace(tmp_path, corpora)
    for tokens in ("600K", "6M", "60M"):  # until they are still being trained when that is seen
        grid = f"sweep.grids=[{{tokens:{tokens},init_seed:[0,1,2,3,4,5]}}]"
        submit(*SHORT, grid, "launch=slurm", "launch.workers=2", cwd=tmp_path)
        until(lambda: held(sweep) or empty(sweep)(), "training")
        if found := held(sweep):
            break
    os.kill(found[0]["pid"], number)
    until(empty(sweep), "the sweep")
    assert "s: 6 done" in status(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))


def test_workers_come_and_go_and_every_run_is_trained_once(cluster, tmp_path, corpora):
    sweep = workplace(tmp_path, corpora)
    asked = [*SHORT, "sweep.grids=[{tokens:[40960,81920],lr:[0.004,0.008,0.016,0.032],init_seed:[0,1,2,3,4]}]"]
    asked += ["launch=slurm", "launch.workers=3", "train.checkpoint_seconds=1"]
    job = submit(*asked, cwd=tmp_path)
    os.kill(until(lambda: held(sweep), "training")[0]["pid"], signal.SIGKILL)
    second = submit(*asked, cwd=tmp_path)
    for task in (f"{job}_0", f"{job}_1", f"{second}_0"):  # one of them is dead by now
        subprocess.run(["scancel", "--signal=USR1", "--batch", task], capture_output=True)
    ask("scancel", f"{second}_2")
    until(empty(sweep), "the sweep", 900)
    assert "s: 40 done" in proxytrain("status", "sweep.name=s", "--check", cwd=tmp_path).stdout
    assert not list(tmp_path.rglob("*.tmp"))
    assert "is requeued" in logs(sweep)
    plan = freeze.load(sweep / "plan.json")
    trained = sum(int(b) - int(a) for a, b in re.findall(r": tokens (\d+) to (\d+) of ", logs(sweep)))
    assert trained <= sum(m.tokens for p in plan.packs for m in p.members)  # the killed worker could not say
