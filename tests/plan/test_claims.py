"""Claims: one worker a pack, and what the dead held is taken over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxytrain.plan.claims import STALE_SECONDS, holder, take

HOLD = (
    "import sys; from pathlib import Path; from proxytrain.plan.claims import take\n"
    "print(take(Path(sys.argv[1])) is not None, flush=True); sys.stdin.read()"
)


def holding(pack: Path) -> subprocess.Popen:
    """A process that tries to take a pack, and stays until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(pack)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def overdue(claim: Path) -> None:
    old = time.time() - STALE_SECONDS - 5
    os.utime(claim, (old, old))


def test_a_claim_is_held_until_it_is_released(tmp_path):
    claim = take(tmp_path / "pack")
    assert claim is not None
    assert take(tmp_path / "pack") is None
    assert holder(tmp_path / "pack").pid == os.getpid()
    claim.release()
    assert holder(tmp_path / "pack") is None
    second = take(tmp_path / "pack")
    assert second is not None
    assert second.attempt != claim.attempt


def test_of_many_processes_one_gets_it(tmp_path):
    workers = [holding(tmp_path / "pack") for _ in range(8)]
    answers = [w.stdout.readline() for w in workers]  # nobody leaves before the last has tried
    for worker in workers:
        worker.communicate()
    assert answers.count(b"True\n") == 1
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_dead_worker_s_claim_is_taken_at_once(tmp_path):
    with holding(tmp_path / "pack") as worker:
        assert worker.stdout.readline() == b"True\n"
        assert take(tmp_path / "pack") is None
        os.kill(worker.pid, signal.SIGKILL)
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # a zombie of this test by now: dead all the same
        assert holder(tmp_path / "pack") is None
        assert take(tmp_path / "pack") is not None


def test_a_silent_worker_of_another_machine_is_overdue_after_a_while(tmp_path):
    claim = take(tmp_path / "pack")
    who = json.loads(claim.path.read_text())
    claim.path.write_text(json.dumps({**who, "owner": "0-1-1"}))
    assert take(tmp_path / "pack") is None
    overdue(claim.path)
    assert take(tmp_path / "pack") is not None


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00\xff"])
def test_a_claim_that_is_not_a_claim_is_overdue_too(tmp_path: Path, content):
    (tmp_path / "pack").mkdir()
    claim = tmp_path / "pack" / "claim"
    claim.write_text(content)
    assert take(tmp_path / "pack") is None
    overdue(claim)
    assert take(tmp_path / "pack") is not None


def test_a_late_worker_does_not_touch_the_claim_of_another(tmp_path):
    late = take(tmp_path / "pack")
    who = json.loads(late.path.read_text())
    late.path.write_text(json.dumps({**who, "owner": "0-1-1"}))
    overdue(late.path)
    second = take(tmp_path / "pack")
    assert second is not None
    late.release()
    assert take(tmp_path / "pack") is None
    second.release()
    assert take(tmp_path / "pack") is not None


def test_a_claim_is_kept_alive_while_it_is_held(tmp_path):
    claim = take(tmp_path / "pack")
    with claim.held(stale_seconds=0.6):
        overdue(claim.path)
        while time.time() - claim.path.stat().st_mtime > STALE_SECONDS:
            assert claim.path.exists()
            time.sleep(0.05)
    assert not claim.path.exists()


def test_a_live_worker_of_this_machine_is_never_overdue_but_a_stopped_one_is(tmp_path):
    with holding(tmp_path / "pack") as worker:
        assert worker.stdout.readline() == b"True\n"
        overdue(tmp_path / "pack" / "claim")
        assert take(tmp_path / "pack") is None
        os.kill(worker.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, worker.pid, os.WSTOPPED | os.WNOWAIT)
        assert take(tmp_path / "pack") is not None
        os.kill(worker.pid, signal.SIGKILL)


def test_a_worker_that_wakes_up_late_notices_that_its_claim_is_another_s(tmp_path):
    late = take(tmp_path / "pack")
    with late.held(stale_seconds=0.6):
        late.path.unlink()
        second = take(tmp_path / "pack")
        assert late.lost.wait(300)
    assert holder(tmp_path / "pack").token == second.token


def test_a_requeued_task_takes_what_its_earlier_life_held_wherever_that_was(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    earlier = take(tmp_path / "pack")
    who = json.loads(earlier.path.read_text())
    earlier.path.write_text(json.dumps({**who, "owner": "0-1-1"}))  # on another machine
    assert take(tmp_path / "pack") is None  # a neighbour in the same job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert take(tmp_path / "pack") is not None


def test_workers_in_different_pid_namespaces_do_not_take_each_other_for_dead(tmp_path):
    claim = take(tmp_path / "pack")
    who = json.loads(claim.path.read_text())
    machine, pid, _ = who["owner"].split("-")
    claim.path.write_text(json.dumps({**who, "owner": f"{machine[::-1]}-{pid}-1"}))
    assert take(tmp_path / "pack") is None
