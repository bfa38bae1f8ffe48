"""Out of memory, for real: workers under a limit of the kernel's train less at a time, and no run fails."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import TINY, TINY_TEXT, assert_same_bits, outcome, proxytrain

from proxytrain.plan.memory import out_of_memory
from proxytrain.store.store import Store

MB = 1 << 20
LARGE = [  # an update of 32k tokens at once takes about 300 MB a member
    *TINY_TEXT,
    *TINY,
    "model.width=32",
    "batch_tokens=32768",
    "warmup=0",
    "schedule=constant",
    "tokens=65536",
    "sweep.name=s",
    "train.memory=100B",  # the plan believes in plenty
    "launch.workers=1",
]


@pytest.fixture
def here(tmp_path: Path, corpora: Path) -> Path:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    return tmp_path


def work(here: Path, megabytes: int) -> str:
    """A worker whose address space may grow by so much beyond what torch takes when it is imported."""
    # one malloc arena: else each thread reserves address space of its own
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    code = "import torch, proxytrain.train.loop; print(open('/proc/self/statm').read().split()[0])"
    pages = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    limit = int(pages.stdout) * resource.getpagesize() + megabytes * MB
    done = subprocess.run(
        [sys.executable, "-m", "proxytrain", "work", "sweep.name=s", "train.device=cpu"],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_packs_that_do_not_fit_are_halved_and_keep_their_bits(here, tmp_path_factory):
    grid = "sweep.grids=[{init_seed:[0,1,2]}]"
    proxytrain("plan", *LARGE, grid, cwd=here)
    out = work(here, 550)
    assert "out of memory with 3 members; its halves are trained one after the other" in out
    assert "out of memory with 1 members" not in out
    roomy = tmp_path_factory.mktemp("roomy")
    (roomy / "runs").mkdir()
    (roomy / "runs" / "corpora").symlink_to(here / "runs" / "corpora")
    proxytrain("sweep", *LARGE, grid, cwd=roomy)
    for run_id in json.loads((here / "runs/sweeps/s/plan.json").read_text())["runs"]:
        assert_same_bits(outcome(Store(here / "runs"), run_id), outcome(Store(roomy / "runs"), run_id))


def test_a_single_member_that_does_not_fit_reads_less_at_once(here):
    proxytrain("plan", *LARGE, cwd=here)
    out = work(here, 180)
    assert "out of memory with 1 members; updates in 2 parts from now on" in out
    assert "s: 1 done" in proxytrain("status", "sweep.name=s", cwd=here).stdout


def test_errors_that_mean_that_memory_was_short():
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 50)
    chained = ValueError("while saving")
    chained.__cause__ = OSError(errno.ENOMEM, "")
    for error in (of_torch.value, MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), chained):
        assert out_of_memory(error)
    for error in (RuntimeError("shapes differ"), OSError(errno.ENOSPC, ""), ValueError()):
        assert not out_of_memory(error)
