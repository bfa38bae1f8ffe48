"""What takes SLURM a minute, or the sweep: time limits, preemption, workers that are killed."""

from __future__ import annotations

import os
import signal

import pytest
from slurm_support import LONG, ONE, ask, empty, held, job_field, logs, saved, status, submit, until, workplace
from support import proxytrain

pytestmark = pytest.mark.slow


def test_a_time_limit_is_met_by_saving_and_the_worker_goes_on_after_a_requeue(cluster, tmp_path, corpora):
    sweep = workplace(tmp_path, corpora)
    long = [
        *LONG,
        "sweep.grids=[{tokens:100M}]",
        "train.checkpoint_seconds=600",
    ]  # the only save is that at the warning
    job = submit(*long, *ONE, "launch.time=1", "launch.warn_seconds=30", cwd=tmp_path)
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
    asked = [*LONG, "train.checkpoint_seconds=600", *ONE, "launch.partition=low"]
    job = submit(*asked, cwd=tmp_path)
    until(lambda: held(sweep), "training")
    ask("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    until(lambda: not held(sweep), "leaving")
    assert saved(sweep) > 0
    until(empty(sweep), "the sweep")
    assert job_field(f"{job}_0", "Restarts") == "1"
    assert "s: 2 done" in status(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_s_death_costs_nothing_but_time(cluster, tmp_path, corpora, number):
    sweep = workplace(tmp_path, corpora)
    submit(
        *LONG, "sweep.grids=[{tokens:600K,init_seed:[0,1,2,3,4,5]}]", "launch=slurm", "launch.workers=2", cwd=tmp_path
    )
    os.kill(until(lambda: held(sweep), "training")[0]["pid"], number)
    until(empty(sweep), "the sweep")
    assert "s: 6 done" in status(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
