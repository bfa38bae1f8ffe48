"""SLURM's scripts: what is asked stands in them, what no cluster could take is refused; none of it needs a cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from guides import ROOT
from support import TINY, TINY_TEXT

from proxytrain.cli.main import main
from proxytrain.launch.script import seconds

SWEEP = [*TINY_TEXT, *TINY, "sweep.name=s", "sweep.grids=[{tokens:[8192,16384]}]", "launch=slurm"]
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(store: Path, tmp_path: Path, monkeypatch, capsys) -> Say:
    """A verb in a working directory, without SLURM's commands on the PATH: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--quiet"])
        return code, *capsys.readouterr()

    return run


def test_a_dry_run_prints_a_script_and_needs_no_slurm(say: Say, tmp_path: Path):
    code, script, _ = say(
        *("submit", *SWEEP, "--dry-run", "launch.workers=8", "launch.max_parallel=4", "launch.partition='a b;c'"),
        *("launch.time=1-12", "launch.gpus=a100:1", "launch.sbatch_args={exclusive:true,mem:16G,mail_user:x}"),
        *(
            "train.device=auto",
            "launch.threads=2",
            "launch.warn_seconds=90",
            "launch.setup=module load cuda/12",
            "launch.finish=true",
        ),
    )
    assert code == 0
    assert script.startswith("#!/bin/bash\n")
    for line in ("array=0-7%4", "partition='a b;c'", "time=1-12", "gres=gpu:a100:1", "exclusive", "mem=16G"):
        assert f"\n#SBATCH --{line}\n" in script
    for line in ("cpus-per-task=2", "signal=B:USR1@90", "requeue", "mail-user=x", f"chdir={tmp_path}"):
        assert f"\n#SBATCH --{line}\n" in script
    assert "\nmodule load cuda/12\nexec " in script
    assert "train.device=cuda" in script
    assert "proxytrain report" in script
    assert subprocess.run(["/bin/bash", "-n"], input=script, text=True).returncode == 0
    assert not (tmp_path / "runs" / "sweeps" / "s" / "slurm").exists()

    plan = tmp_path / "runs" / "sweeps" / "s" / "plan.json"
    assert json.loads(plan.read_text())["costs"]["device"] == "cuda"

    script = say("submit", *SWEEP, "--dry-run", "launch.requeue=false", "launch.time=1")[1]
    assert json.loads(plan.read_text())["costs"]["device"] == "cpu"
    assert "--no-requeue\n" in script
    assert "--signal=B:USR1@30\n" in script


@pytest.mark.parametrize("activates", [True, False])
def test_the_guide_s_setup_runs_the_worker_on_the_python_that_it_activates(say: Say, tmp_path: Path, activates: bool):
    (cell,) = re.findall(r"`([^`]*launch\.setup=[^`]*)`", (ROOT / "docs/slurm.md").read_text())
    other = tmp_path / "environment"
    venv.create(other, with_pip=False)
    (site,) = other.glob("lib/python*/site-packages")
    (site / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    activate = f"source {other}/bin/activate" if activates else "true"
    line = cell.replace("source /path/.venv/bin/activate", activate)
    assert line != cell
    word = subprocess.run(["/bin/bash", "-c", f"printf %s {line}"], capture_output=True, text=True, check=True).stdout
    code, script, _ = say("submit", *SWEEP, "--dry-run", word)
    assert code == 0
    done = subprocess.run(["/bin/bash"], input=script, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    python = other / "bin" / "python" if activates else sys.executable
    assert done.stdout.splitlines()[0].endswith(f", life 1, {python}")
    assert main(["status", "sweep.name=s"]) == 0


def test_without_slurm_s_commands_nothing_is_submitted_and_it_says_so(say: Say, tmp_path: Path):
    code, _, error = say("submit", *SWEEP)
    assert (code, error.count("\n")) == (2, 1)
    assert "no sbatch on the PATH" in error
    assert not (tmp_path / "runs" / "sweeps").exists()
    code, _, error = say("cancel", "sweep.name=s")
    assert (code, error.count("\n")) == (2, 1)
    assert "no such plan; `proxytrain sweep`" in error
    say("plan", *SWEEP)
    code, _, error = say("cancel", "sweep.name=s")
    assert (code, error.count("\n")) == (2, 1)
    assert "no scancel on the PATH" in error
    assert "`proxytrain submit` trains on the cluster" in say("sweep", *SWEEP)[2]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("launch.time=soon", "launch.time=soon: allowed are minutes (90)"),
        ("launch.time='0:00'", "launch.time=0:00: must be above 0"),
        ("launch.workers=0", "launch.workers=0: must be above 0"),
        ("launch.max_parallel=0", "launch.max_parallel=0: must be above 0"),
        ("launch.gpus=4", "launch.gpus=4: a worker trains on one GPU"),
        ("launch.gpus='1;x'", "launch.gpus=1;x: a worker trains on one GPU"),
        ("train.device=cuda", "launch.gpus=null: train.device=cuda needs a GPU for each worker"),
        ("launch.sbatch_args={array:1-3}", "launch.sbatch_args.array: is set by launch.workers"),
        ("launch.sbatch_args={no_requeue:true}", "launch.sbatch_args.no_requeue: is set by launch.requeue"),
        ("launch.sbatch_args={MEM:1G}", "launch.sbatch_args.MEM: a long option of sbatch"),
        ("launch.sbatch_args={mem:[1]}", "launch.sbatch_args.mem=[1]: a text, a number"),
        ("launch.partition='a\\b'", "a backslash or a control character"),
        ("launch.partition='a\nb'", "a backslash or a control character"),
        ("launch.worker=3", "launch.worker: no such key (did you mean launch.workers?)"),
        ("launch=local", "launch=local: submit needs launch=slurm"),
    ],
)
def test_what_no_cluster_could_take_is_refused_by_name(say: Say, asked: str, said: str):
    code, _, error = say("submit", *SWEEP, asked, "--dry-run")
    assert (code, error.count("\n")) == (2, 1)
    assert said in error


def test_what_was_planned_for_a_cluster_s_gpus_is_planned_anew_for_this_machine(say: Say, store: Path):
    words, plan = ["plan", *SWEEP, f"store={store}", "train.device=auto"], store / "sweeps/s/plan.json"
    here = "cuda" if torch.cuda.is_available() else "cpu"
    for launch, device in ("launch.gpus=1", "cuda"), ("launch=local", here), ("launch=local", here):
        assert say(*words, launch)[0] == 0
        assert json.loads(plan.read_text())["costs"]["device"] == device


@pytest.mark.parametrize(
    ("time", "limit"),
    [("90", 5400), ("1:30", 90), ("4:00:00", 14400), ("1-12", 129600), ("1-0:5", 86700), ("2-01:02:03", 176523)],
)
def test_a_time_is_read_as_sbatch_reads_it(time: str, limit: int):
    assert seconds(time) == limit
