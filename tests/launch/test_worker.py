"""Workers: what fails is split off, tried again and told; who is asked to stop saves and leaves."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from msgspec import structs
from support import ENDLESS, TINY, TINY_TEXT, assert_same_bits, outcome, planned, proxytrain, start

from proxytrain.errors import RequestError
from proxytrain.plan import cost, freeze
from proxytrain.plan.claims import take
from proxytrain.store.store import Store

SWEEP = [*TINY_TEXT, *TINY, "sweep.name=s", "sweep.grids=[{init_seed:[0,1,2],tokens:[8192,16384]}]", "launch.workers=1"]
LONG = [*TINY_TEXT, *TINY, "sweep.name=s", *ENDLESS]
BOTH = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


@pytest.fixture
def here(tmp_path: Path, corpora: Path) -> Path:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    return tmp_path


def plan_of(here: Path) -> dict:
    return json.loads((here / "runs/sweeps/s/plan.json").read_text())


def wait_for(here: Path, pattern: str, process: subprocess.Popen) -> None:
    end = time.monotonic() + 600
    while not list(here.glob(pattern)):
        assert time.monotonic() < end, f"no {pattern}"
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)


def test_a_member_that_fails_is_split_off_and_the_others_go_on(here, tmp_path_factory):
    proxytrain("plan", *SWEEP, cwd=here)
    plan = plan_of(here)
    members = plan["packs"][0]["members"]
    assert len(members) == 3
    blocked = here / "runs" / "segments" / members[1][0]["lineage"]
    blocked.parent.mkdir()
    blocked.write_text("a file where a folder must go")

    done = proxytrain("sweep", *SWEEP, cwd=here, check=1)
    assert "some runs failed" in done.stderr
    status = proxytrain("status", "sweep.name=s", cwd=here, check=1).stdout
    assert "s: 4 done, 2 failed" in status
    assert "Error" in status
    assert "Traceback" not in status
    (log,) = {line.partition("(traceback: ")[2].rstrip(")") for line in status.splitlines() if "traceback: " in line}
    assert "Traceback" in json.loads((here / log).read_text())["traceback"]
    assert proxytrain("work", "sweep.name=s", "train.device=cpu", cwd=here, check=1).stdout == ""  # nothing left to try

    blocked.unlink()
    proxytrain("sweep", *SWEEP, cwd=here)
    assert "s: 6 done" in proxytrain("status", "sweep.name=s", cwd=here).stdout
    assert not list(here.glob("runs/**/*.tmp"))
    assert not list(here.glob("runs/**/attempt-*"))
    undisturbed = tmp_path_factory.mktemp("undisturbed")
    (undisturbed / "runs").mkdir()
    (undisturbed / "runs/corpora").symlink_to(here / "runs/corpora")
    proxytrain("sweep", *SWEEP, cwd=undisturbed)
    for run_id in plan["runs"]:
        assert_same_bits(outcome(Store(here / "runs"), run_id), outcome(Store(undisturbed / "runs"), run_id))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_a_worker_that_is_asked_to_stop_saves_releases_and_leaves_with_130(here, number):
    proxytrain("plan", *LONG, cwd=here)
    worker = start("work", "sweep.name=s", "train.device=cpu", cwd=here, **BOTH)
    wait_for(here, "runs/sweeps/s/packs/*/attempt-*/progress.json", worker)
    worker.send_signal(number)
    out = worker.communicate(timeout=300)[0]
    assert worker.returncode == 130
    assert f"stopped by {number.name}, all saved" in out
    assert len(list(here.glob("runs/sweeps/s/packs/*/attempt-*/state-*.npz"))) == 1
    assert not list(here.glob("runs/sweeps/s/packs/*/claim"))
    assert not list(here.glob("runs/**/*.tmp"))


def test_a_time_limit_is_met_by_saving(here):
    for limit in (6, 12, 24, 48, 96, 192):  # a slow machine needs some of it to start
        done = proxytrain("sweep", *LONG, f"launch.time_limit={limit}", cwd=here, check=130)
        assert "the same command goes on" in done.stderr
        assert "stopped by the time limit" in (here / "runs/sweeps/s/worker-0.log").read_text()
        assert not list(here.glob("runs/sweeps/s/packs/*/claim"))
        if state := list(here.glob("runs/sweeps/s/packs/*/attempt-*/state-*.npz")):
            break
    assert len(state) == 1


def test_a_disk_that_fills_in_training_leaves_nothing_half_written(here):
    proxytrain("plan", *LONG, cwd=here)
    worker = start("work", "sweep.name=s", "train.device=cpu", cwd=here, **BOTH)
    wait_for(here, "runs/sweeps/s/packs/*/attempt-*/progress.json", worker)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (20, 20))
    time.sleep(3)  # it reports once a second, and goes on without
    assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    out = worker.communicate(timeout=300)[0]
    assert "checkpoint not written" in out
    assert "stopped by SIGTERM, its last updates not saved" in out
    assert worker.returncode == 130
    assert not list(here.glob("runs/**/*.tmp"))


def test_what_another_sweep_trained_leaves_no_attempts(here):
    proxytrain("plan", *SWEEP, cwd=here)
    attempt = here / "runs/sweeps/s/packs" / plan_of(here)["packs"][0]["id"] / "attempt-001-0123abcd"
    attempt.mkdir(parents=True)
    (attempt / "state-1.npz").write_text("of a worker that was killed")
    proxytrain("sweep", *SWEEP, "sweep.name=other", cwd=here)
    assert attempt.exists()
    proxytrain("work", "sweep.name=s", "train.device=cpu", cwd=here)
    assert not attempt.exists()


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


def compiling(here: Path, monkeypatch, widths: list[int]) -> dict[str, int]:
    """Plans a sweep of two packs a width, to be compiled with an empty cache; returns the packs' widths, in turn."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(here))
    asked = [*TINY_TEXT, *TINY, "model.depth=1", "sweep.name=s", "launch.workers=1", "train.compile=on"]
    grids = f"sweep.grids=[{{model.width:{widths},tokens:[4096,8192],init_seed:[0,1]}}]".replace(" ", "")
    proxytrain("plan", *asked, grids, cwd=here)
    plan = plan_of(here)
    return {p["id"]: plan["recipes"][p["members"][0][0]["recipe"]]["model"]["width"] for p in plan["packs"]}


@needs_compiler
def test_a_worker_leaves_a_shape_that_another_compiles_and_stays_with_its_programs(here, monkeypatch):
    width = compiling(here, monkeypatch, [16, 32])
    first, second, third, fourth = width.values()
    assert (first, second) == (third, fourth)  # else this shows nothing
    claim = take(here / "runs/sweeps/s/packs" / next(iter(width)))
    trained: list[int] = []
    with claim.held():
        worker = start("work", "sweep.name=s", "train.device=cpu", cwd=here, **BOTH)
        while len(trained) < 2:
            line = worker.stdout.readline()
            assert line
            trained += [width[name] for name in re.findall(r"^(\w+)/attempt-", line)]
        worker.kill()
        worker.communicate()
    assert trained == [second, second]


def test_a_second_interrupt_ends_at_once_and_leaves_all_whole(here):
    proxytrain("plan", *LONG, "train.checkpoint_seconds=1e6", cwd=here)  # which the worker's own replaces
    worker = start("work", "sweep.name=s", "train.device=cpu", "train.checkpoint_seconds=0.1", cwd=here, **BOTH)
    wait_for(here, "runs/sweeps/s/packs/*/attempt-*/state-*.npz", worker)
    worker.send_signal(signal.SIGINT)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(300) == 130
    assert not list(here.glob("runs/**/*.tmp"))
    assert not list(here.glob("runs/sweeps/s/packs/*/claim"))


def test_a_worker_s_own_memory_splits_updates_and_leaves_all_else_as_it_is_planned(ask):
    made = planned(ask("tokens=8192", "batch_tokens=1024"))
    (pack,) = made.packs
    assert made.micro_batches[pack.id] == 1
    little = structs.replace(made.train, memory=cost.memory(pack, 2, "cpu"))
    assert freeze.changed(made, little, "cpu").micro_batches[pack.id] == 2
    assert freeze.changed(made, little, "cpu").packs == made.packs
    often = structs.replace(made.train, checkpoint_seconds=0.1)
    assert freeze.changed(made, often, "cpu") == dataclasses.replace(made, train=often)
    with pytest.raises(RequestError, match=r"train\.memory=1000: one sequence of 32 tokens at width 16 does not fit"):
        freeze.changed(made, structs.replace(made.train, memory=1000), "cpu")


def test_no_worker_outlives_a_killed_sweep_and_what_it_did_is_saved(here):
    sweep = start("sweep", *LONG, cwd=here, **BOTH)
    wait_for(here, "runs/sweeps/s/packs/*/attempt-*/progress.json", sweep)
    (claim,) = here.glob("runs/sweeps/s/packs/*/claim")
    pid = json.loads(claim.read_text())["pid"]
    os.kill(sweep.pid, signal.SIGKILL)
    deadline = time.monotonic() + 300
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not claim.exists()
    assert list(here.glob("runs/sweeps/s/packs/*/attempt-*/state-*.npz"))
