"""The commands as a user types them: real processes, real files, exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from guides import told
from support import ENDLESS, TINY, TINY_TEXT, assert_same_bits, kill_left, outcome, proxytrain, start

from proxytrain.store.store import Store

GRID = (
    "sweep.grids=[{model.width:[16,24,32,40],tokens:[16384,32768,65536],init_seed:[0,1]},"
    "{schedule:cosine,tokens:65536}]"
)
SWEEP = [*TINY_TEXT, *TINY, "sweep.name=s", GRID, "sweep.target={model:{width:64},tokens:65536}", "launch.workers=2"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory, corpora) -> Path:
    """A folder in which the main job has run."""
    cwd = tmp_path_factory.mktemp("swept")
    (cwd / "runs").mkdir()
    (cwd / "runs" / "corpora").symlink_to(corpora)
    (cwd / "first.txt").write_text(proxytrain("sweep", *SWEEP, cwd=cwd).stdout)
    return cwd


def test_the_main_job_predicts_with_an_interval_and_writes_a_page(swept):
    text = (swept / "first.txt").read_text()
    assert "predicted loss of one run with width 64" in text
    assert "90% interval [" in text
    folder = swept / "runs" / "sweeps" / "s"
    assert (folder / "report.html").stat().st_size > 10_000
    fit = json.loads((folder / "fit.json").read_text())
    header, row = (folder / "predictions.csv").read_text().splitlines()
    values = dict(zip(header.split(","), row.split(",")))
    assert float(values["low"]) < float(values["loss"]) < float(values["high"])
    assert len(fit["runs"]["loss"]) == 24  # the cosine run is of another schedule than the target


def test_a_target_of_a_schedule_that_no_run_has_is_refused_and_has_its_page(swept):
    target = ["sweep.name=other", "sweep.target={schedule:power,tokens:65536}"]
    done = proxytrain("sweep", *SWEEP, *target, cwd=swept, check=1)
    assert "no run of the sweep has the target's schedule, power" in done.stdout + done.stderr
    assert "target's schedule, power" in (swept / "runs/sweeps/other/report.html").read_text().replace("&#x27;", "'")


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["plan", "--cfg", "job"]])
def test_a_pipe_that_nobody_reads_is_no_error(tmp_path, words):
    command = start(*words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    command.stdout.close()
    said = command.stderr.read()
    assert command.wait() == 0
    assert "Traceback" not in said


def test_run_again_it_does_nothing_and_says_the_same(swept):
    def state() -> dict[Path, int]:
        made = [
            *swept.glob("runs/segments/*/*/*"),
            *swept.glob("runs/sweeps/s/*.json"),
            *swept.glob("runs/sweeps/s/*.html"),
        ]
        return {p: p.stat().st_mtime_ns for p in made}

    said = proxytrain("sweep", *SWEEP, cwd=swept).stdout
    assert said.splitlines()[0] == (swept / "first.txt").read_text().splitlines()[0]
    before = state()
    assert proxytrain("sweep", *SWEEP, cwd=swept).stdout == said
    assert state() == before  # nothing trained, fitted or drawn again: what scripts/bench_plan.py times


def test_a_longer_length_added_later_trains_only_what_is_new(swept):
    store = Store(swept / "runs")
    before = set(store.root.glob("segments/*/*"))
    longer = [o.replace("32768,65536]", "32768,65536,131072]") for o in SWEEP]
    out = proxytrain("plan", *longer, "sweep.name=longer", cwd=swept).stdout
    # 8 recipes: the trunk from .8 * 65536 on, and one new ending each
    assert "to train: 629k tokens" in out, out
    proxytrain("sweep", *longer, "sweep.name=longer", cwd=swept)
    new = set(store.root.glob("segments/*/*")) - before
    assert len(new) == 16
    assert {int(p.name) for p in new} == {104960, 131072}


def test_a_store_may_have_any_name(tmp_path, corpora):
    folder = tmp_path / "it's (a) [störe], k=v"
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "corpora").symlink_to(corpora)
    assert "1 runs done" in proxytrain("sweep", *TINY_TEXT, *TINY, "sweep.name=s", cwd=folder).stdout


def test_damage_heals(swept, tmp_path):
    shutil.copytree(swept / "runs", tmp_path / "runs", symlinks=True)
    store = Store(tmp_path / "runs")
    plan = json.loads((tmp_path / "runs/sweeps/s/plan.json").read_text())
    ids = list(plan["runs"])
    before = {i: outcome(store, i) for i in ids}
    for run_id in ids[:6]:
        (store.run(run_id) / "result.json").unlink()
    for path in sorted(store.root.glob("segments/*/*/state.npy"))[::2]:
        (path.parent / "segment.json").unlink()
    (tmp_path / "runs/sweeps/s/plan.json").write_text("[]")
    assert "not what proxytrain writes there" in proxytrain("sweep", *SWEEP, cwd=tmp_path, check=2).stderr
    (tmp_path / "runs/sweeps/s/plan.json").unlink()
    proxytrain("sweep", *SWEEP, cwd=tmp_path)
    for run_id in ids:
        assert_same_bits(outcome(store, run_id), before[run_id])


def test_status_tells_what_is_done(swept):
    assert "s: 25 done" in proxytrain("status", "sweep.name=s", cwd=swept).stdout
    assert "s: 25 done" in proxytrain("status", cwd=swept).stdout
    content = json.loads(proxytrain("status", "--json", "sweep.name=s", cwd=swept).stdout)
    assert content["s"]["counts"] == {"done": 25}


def test_plan_tells_what_sharing_saves_and_trains_nothing(swept, tmp_path):
    out = proxytrain("plan", *SWEEP, "store=elsewhere", cwd=tmp_path).stdout
    assert "25 runs" in out
    assert "members" in out
    assert "times those of the largest run" in out
    assert not (tmp_path / "elsewhere" / "segments").exists()


def test_verify_trains_the_target_and_holds_the_prediction_against_it(swept):
    out = proxytrain("verify", *SWEEP, cwd=swept).stdout
    assert "truth: " in out
    assert "side the 90% interval" in out or "OUTSIDE the 90% interval" in out


@pytest.mark.slow
def test_verify_trains_the_target_under_as_many_seeds_as_asked(swept):
    first = re.search(r"truth: ([0-9.]+) ±", proxytrain("verify", *SWEEP, cwd=swept).stdout)
    done = proxytrain("verify", *SWEEP, "verify.seeds=3", cwd=swept)
    found = re.search(r"truth: (\S+), (\S+), (\S+) \(seeds 0, 1, 2\), mean (\S+); .* of 3 inside", done.stdout)
    assert first
    assert found
    *losses, mean = map(float, found.groups())
    assert losses[0] == float(first[1])
    assert len(set(losses)) == 3
    assert mean == pytest.approx(sum(losses) / 3, abs=1e-4)


def test_a_page_is_not_replaced_by_that_of_other_words(swept):
    page = swept / "runs/sweeps/s/report.html"
    before = page.read_bytes()
    done = proxytrain("report", *TINY_TEXT, *TINY, "sweep.name=s", cwd=swept, check=2)
    assert "sweep.name=s: was planned with other runs" in done.stderr
    assert page.read_bytes() == before
    assert "report: " in proxytrain("report", *SWEEP, cwd=swept).stdout


def test_a_law_in_one_variable_predicts_the_target_that_differs_in_it_alone(swept):
    def asked(target: str) -> list[str]:
        words = [o.replace("{model:{width:64},tokens:65536}", target) for o in SWEEP]
        return [*words, "fit.law=power_in_params", "fit.allow_extrapolation=true"]

    assert (
        "predicted loss of one run with width 64"
        in proxytrain("predict", *asked("{model:{width:64},tokens:65536}"), cwd=swept).stdout
    )
    done = proxytrain("predict", *asked("{model:{width:64},tokens:32768}"), cwd=swept, check=1)
    assert "knows params alone: the target has tokens=3.277e+04, its runs 6.554e+04" in done.stderr
    proxytrain("fit", *SWEEP, cwd=swept)  # as it was


def test_a_target_of_another_kind_than_the_runs_is_said(swept):
    other = [o.replace("{model:{width:64}", "{model:{width:64,depth:3}") for o in SWEEP]
    out = proxytrain("predict", *other, cwd=swept).stdout
    assert "warning: the target has model.depth=3, the sweep's runs 2" in out
    assert "model.depth" not in proxytrain("predict", *SWEEP, cwd=swept).stdout


def test_the_optimum_of_a_sweep_s_own_runs_is_fitted(tmp_path, corpora):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    rates = "[0.0005,0.002,0.008,0.032,0.128]"
    grid = f"sweep.grids=[{{model.width:[16,32],tokens:[16384,32768],lr:{rates}}}]"
    asked = [*TINY_TEXT, *TINY, "sweep.name=rates", grid, "--quiet"]
    proxytrain("sweep", *asked, cwd=tmp_path)
    target = "sweep.target={model:{width:48},tokens:32768}"
    (line,) = told("fit sweep.name=NAME fit.law=optimum")
    done = proxytrain(*line, *asked, target, cwd=tmp_path, check=1)
    assert "optimum of learning rate from 20 runs" in done.stdout
    assert "beyond the largest grid" in done.stderr
    assert (tmp_path / "runs/sweeps/rates/optimum_optimum.png").exists()
    more = proxytrain("fit", *asked, "fit.law=optimum", target, "fit.allow_extrapolation=true", cwd=tmp_path)
    assert "EXTRAPOLATED beyond what was held out: best learning rate" in more.stdout.replace(" (up to 1x)", "")


def test_fit_and_predict_work_on_anybody_s_table(tmp_path):
    n, d = np.meshgrid([1e7, 3e7, 1e8, 3e8, 1e9], [1e9, 3e9, 1e10, 3e10])
    loss = 1.8 + 480 * n**-0.35 + 2100 * d**-0.37
    rows = zip(n.ravel(), d.ravel(), loss.ravel())
    (tmp_path / "l.csv").write_text("params,tokens,loss\n" + "\n".join(f"{a},{b},{c}" for a, b, c in rows))
    out = proxytrain("fit", "table=l.csv", "fit.law=chinchilla", cwd=tmp_path).stdout
    assert "alpha = 0.35" in out
    answer = json.loads(proxytrain("predict", "params=7e9", "tokens=1e11", "--json", cwd=tmp_path).stdout)
    assert answer["loss"] == pytest.approx(1.8 + 480 * 7e9**-0.35 + 2100 * 1e11**-0.37, rel=2e-3)
    assert "predicted loss" in proxytrain("predict", "params=7e9", "tokens=1e11", "file=fit.json", cwd=tmp_path).stdout


def test_answers_are_one_json_object_where_that_is_asked_for(swept):
    def answer(*arguments: str, check: int = 0) -> dict:
        return json.loads(proxytrain(*arguments, "--json", cwd=swept, check=check).stdout)

    plan = answer("plan", *SWEEP)
    assert plan["runs"].keys() == json.loads((swept / "runs/sweeps/s/plan.json").read_text())["runs"].keys()
    assert sum(p["tokens"] for p in plan["packs"]) == plan["tokens_to_train"]
    whole = answer("sweep", *SWEEP)
    fit = answer("fit", *SWEEP)
    assert whole["runs"] == {"done": 25, "diverged": 0}
    assert whole["prediction"] == answer("predict", *SWEEP)["prediction"]
    assert whole["prediction"]["low"] < whole["prediction"]["loss"] < whole["prediction"]["high"]
    assert Path(swept / whole["report"]).exists()
    assert fit["fit"] == whole["fit"]
    assert fit["law"] == "auto"
    assert sum(fit["weights"].values()) == pytest.approx(1)
    refused = answer("predict", "params=1e9", "tokens=1e12", f"file={fit['fit']}", check=1)
    assert "is a gap of" in refused["refused"]


def test_train_is_one_run(tmp_path, swept):
    out = proxytrain("train", *TINY_TEXT, *TINY, f"store={swept}/runs", cwd=tmp_path).stdout
    assert out.startswith("loss ")
    assert Path(out.rpartition("result: ")[2].strip()).exists()


def test_train_runs_under_hydra_s_multirun(tmp_path, swept):
    overrides = [*TINY_TEXT, *TINY, f"store={swept}/runs", "lr=0.01,0.02", f"hydra.sweep.dir={tmp_path}/multirun"]
    out = proxytrain("train", "-m", *overrides, cwd=tmp_path)
    assert out.stdout.count("loss ") >= 2


@pytest.mark.slow
def test_a_sweep_killed_at_any_moment_ends_in_the_same_bits(swept, tmp_path, corpora):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    command, silent = ["sweep", *SWEEP, "train.checkpoint_seconds=0.001"], subprocess.DEVNULL
    moments = ["sweeps/s/packs/*/attempt-*/state-*.npz", "segments/*/*/segment.json", "runs/*/result.json"]
    for moment in moments:
        known = set(tmp_path.glob(f"runs/{moment}"))
        process = start(*command, cwd=tmp_path, start_new_session=True, stdout=silent, stderr=silent)
        while not set(tmp_path.glob(f"runs/{moment}")) - known:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        kill_left(tmp_path)  # its workers, before they can save
        process.wait()
    assert len(list(tmp_path.glob("runs/runs/*/result.json"))) < 25
    proxytrain(*command, cwd=tmp_path)
    plan = json.loads((tmp_path / "runs/sweeps/s/plan.json").read_text())
    a, b = Store(tmp_path / "runs"), Store(swept / "runs")
    for run_id in plan["runs"]:
        assert_same_bits(outcome(a, run_id), outcome(b, run_id))
    assert not [p for p in tmp_path.rglob("*.tmp") if "corpora" not in p.parts]


def test_an_interrupt_saves_and_the_same_command_goes_on(tmp_path, corpora):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    command, begun = [*TINY_TEXT, *TINY, "sweep.name=s", *ENDLESS], 0
    for attempt in (1, 2):
        process = start("sweep", *command, cwd=tmp_path, stderr=subprocess.PIPE)
        while not (shown := list(tmp_path.glob(f"runs/sweeps/s/packs/*/attempt-{attempt:03d}-*/progress.json"))):
            time.sleep(0.2)
            assert process.poll() is None
        assert json.loads(shown[0].read_text())["begun"] == begun
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 130
        assert "the same command goes on" in process.stderr.read()
        assert not list(tmp_path.glob("runs/sweeps/s/packs/*/claim"))
        states = tmp_path.glob("runs/sweeps/s/packs/*/attempt-*/state-*.npz")
        kept = [json.loads(np.load(p)["meta"].tobytes())["members"] for p in states]
        before, begun = begun, max(sum(m["position"] for m in members) for members in kept)
        assert begun > before


@pytest.mark.parametrize("module", ["proxytrain.errors", "numpy.exceptions", "numpy.linalg._linalg", "omegaconf.base"])
def test_an_interrupt_while_it_still_imports_is_no_traceback(module, tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "proxytrain", "plan"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.endswith(f" {module}\n"):
            process.send_signal(signal.SIGINT)
            break
    said = process.stderr.read()
    assert process.wait(60) == 130
    assert "Traceback" not in said
    assert said.endswith("interrupted; the same command goes on\n")


def test_status_fit_and_predict_do_not_import_torch(swept):
    code = (
        "import sys; from proxytrain.cli.main import main\n"
        f"sweep = {SWEEP!r}\n"
        "assert main(['status', 'sweep.name=s']) == 0\n"
        "assert main(['fit', 'table=runs/sweeps/s/losses.csv', 'file=f.json']) == 0\n"
        "assert main(['predict', *sweep]) == 0\n"
        "assert main(['sweep', *sweep]) == 0\n"
        "assert not {'torch', 'wandb'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=swept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_predict_reads_the_fit_that_was_just_made(swept, tmp_path):
    table = swept / "runs/sweeps/s/losses.csv"
    proxytrain("fit", f"table={table}", "fit.law=chinchilla", cwd=tmp_path)
    (tmp_path / "runs").symlink_to(swept / "runs")
    out = proxytrain("predict", "params=1e5", "tokens=100K", cwd=tmp_path).stdout
    assert "(fit.json)" in out


def test_names_that_are_used_by_other_runs_in_training_are_refused(tmp_path, corpora):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    base = [*TINY_TEXT, *TINY, "sweep.name=s", "launch.workers=1"]
    process = start("sweep", *base, *ENDLESS, cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("runs/sweeps/s/packs/*/claim")):
        time.sleep(0.1)
        assert process.poll() is None
    assert "other runs are being trained" in proxytrain("plan", *base, "tokens=8192", cwd=tmp_path, check=2).stderr
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130


WRONG = [
    (["swep"], "no such verb", 2),
    (["sweep", "model.widht=3"], "did you mean model.width?", 2),
    (["sweep", "schedule=cosin"], "allowed are", 2),
    (["sweep", "sweep.grids=[{model.width:[]}]"], "an axis needs at least one value", 2),
    (["sweep", "warmup=1K", "tokens=100"], "shorter than one update", 2),
    (["sweep", "warmup=1K", "tokens=8192", "schedule.decay=100K"], "schedule.decay=100000", 2),
    (["sweep", "model.width=20"], "multiple of model.head_size", 2),
    (["sweep", "sweep.name=../x"], "sweep.name=../x", 2),
    (["sweep", "data=files", "data.files=[nothing/*.txt]"], "nothing/*.txt", 2),
    (["sweep", "batch_tokens=1G"], "shorter than one update of 1000000000", 2),
    (["train", "sweep.grids=[{lr:[.1,.2]}]"], "2 runs; `train` trains one", 2),
    (["train", "train.device=tpu"], "train.device=tpu: allowed are auto, cpu, cuda", 2),
    (["fit", "table=nothing.csv"], "nothing.csv", 2),
    (["predict", "params=1e9", "tokens=1e9"], "`proxytrain fit` writes it", 2),
    (["predict", "params=1e9"], "`proxytrain fit` writes it", 2),
    (["predict", "tokens=1e9", "file=f.json"], "file=f.json: no f.json", 2),
    (["fit", "table="], "table", 2),
    (["fit", "table=l.csv", "file=runs"], "file=runs: a folder", 2),
    (["sweep", "fit.law=optimum"], "fit.law=optimum: is what `proxytrain fit` fits", 2),
    (["sweep", "fit.law=chinchila"], "did you mean chinchilla?", 2),
    (["sweep", "fit.schedule=cosin"], "fit.schedule=cosin: no run has it", 2),
    (["sweep", "sweep.grids=[{modle.width:3}]"], "did you mean model?", 2),
    (["verify"], "nothing to verify", 2),
    (["verify", "verify.seeds=0"], "verify.seeds=0: must be above 0", 2),
    (["work", "sweep.name=none"], "no such plan", 2),
    (["status", "sweep.name=none"], "no such plan", 2),
    (["sweep", "--config-dir", "nowhere"], "no such folder", 2),
    (["sweep", "train.memory=1K"], "train.memory=1000", 2),
    (["sweep", "launch.devices=[7]", "train.device=cpu"], "launch.devices=[7]: training is on the CPU", 2),
    (["sweep", "train.compile=maybe"], "train.compile=maybe: allowed are auto, on, off", 2),
    (["sweep", "batch_tokens=100"], "batch_tokens=100: must be a multiple of model.context", 2),
    (["sweep", "data.allow_repeat=false", "tokens=100M"], "data.allow_repeat=false", 2),
    # units
    (["sweep", "tokens=4T", "--quiet"], "sweep.budget_hours=24: training takes about 4", 2),
    (["train", "tokens=4T", "--quiet"], "allow it with sweep.budget_hours=", 2),
    (["sweep", "tokens=4"], "shorter than one update of 256", 2),
    (["sweep", "tokens=4MB"], "such as 4000000, 4e6 or 4M", 2),
    (["sweep", "warmup=0.1"], "warmup=0.1: a whole number", 2),
    (["sweep", "warmup=1M"], "at least as long as the run", 2),
    (["sweep", "schedule.decay=20"], "below 1 it is a fraction of the run", 2),
    (["sweep", "model.width=1e9"], "does not fit; give more memory or a smaller model", 2),
    (["sweep", "train.memory=4GB"], "train.memory=4GB: a whole number", 2),
    (["sweep", "data.val_fraction=10"], "above 0 and at most 0.5", 2),
    (["submit", "launch=slurm", "launch.time=4h"], "hours:minutes:seconds (4:00:00)", 2),
    (["fit", "table=billions.csv"], "params in row 1 is 7; must be parameters, at least 1000", 2),
    (["fit", "table=billions.csv", "fit.level=90"], "fit.level=90", 2),
    # kinds and names
    (["sweep", "lr=0.01,0.02"], "sweep.grids=[{lr:[0.01,0.02]}]", 2),
    (["sweep", "model.width"], "an override reads key=value", 2),
    (["sweep", "launch.workers=two"], "launch.workers=two: a whole number", 2),
    (["sweep", "train.precision=bf16"], "did you mean bfloat16?", 2),
    (["sweep", "init_seed=-1"], "init_seed=-1: must be at least 0", 2),
    (["sweep", "tokens=8192", "flops=1e15"], "a run's length is one of them", 2),
    (["sweep", "sweep.grids={lr:[0.1]}"], "a list is needed", 2),
    (["sweep", "sweep.target={model:{width:[64,128]}}"], "sweep.target is one run", 2),
    (["plan", "experiment=quikstart"], "did you mean quickstart?", 2),
    (["status", "--watch", "--json"], "leave out --json", 2),
    (["status", "--watch"], "there is none in runs", 2),
    # too large
    (["plan", f"sweep.grids=[{{lr:{[*range(1, 400)]},init_seed:{[*range(400)]}}}]"], "are 159,600 runs; at most", 2),
    (["sweep", "launch=slurm"], "`proxytrain submit` trains on the cluster", 2),
    (["sweep", "sweep.budget_hours=1e-9", "--quiet"], "sweep.budget_hours=1e-09: training takes about", 2),
    # folders and files
    (["sweep", "store=/proc/none"], "store=/proc/none: No such file or directory; name a folder", 2),
    (["sweep", "store=/sys/none"], "name a folder that you can write to", 2),
    (["sweep", "store=billions.csv"], "store=billions.csv: not a folder", 2),
    (["fit", "table=billions.csv", "file=none/fit.json"], "its folder does not exist", 2),
    (
        ["predict", "params=7e9", "tokens=2e12", "file=billions.csv"],
        "billions.csv: not what proxytrain writes there",
        2,
    ),
    # of another version
    (["predict", "params=7e9", "tokens=2e12", "file=old.json"], "must be 'proxytrain fit", 2),
    (["status", "sweep.name=old"], "format 0, this version reads 1; plan again", 2),
]


@pytest.mark.parametrize(("arguments", "says", "code"), WRONG, ids=lambda a: " ".join(a) if isinstance(a, list) else "")
def test_what_is_wrong_ends_in_one_line(arguments, says, code, tmp_path, corpora):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    (tmp_path / "billions.csv").write_text("params,tokens,loss\n7,1.4,2.1\n")
    (tmp_path / "old.json").write_text('{"format": "proxytrain fit 0"}')
    if "sweep.name=old" in arguments:
        (tmp_path / "runs/sweeps/old").mkdir(parents=True)
        (tmp_path / "runs/sweeps/old/plan.json").write_text('{"format": 0}')
    base = [*TINY_TEXT, *TINY] if arguments[0] in ("sweep", "train", "verify") else []
    if any(a.startswith("data=") for a in arguments):
        base = TINY
    done = proxytrain(arguments[0], *base, *arguments[1:], cwd=tmp_path, check=code)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs" / "segments").exists()
    assert not (tmp_path / "runs" / "sweeps").exists() or "sweep.name=old" in arguments


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare to mount a small disk")
def test_a_disk_without_room_is_told_before_anything_is_trained(tmp_path):
    (tmp_path / "runs").mkdir()
    asked = [*TINY_TEXT, *TINY, "sweep.grids=[{model.width:[64,96],init_seed:[0,1,2,3]}]"]
    command = shlex.join([sys.executable, "-m", "proxytrain", "sweep", "--quiet", *asked])
    script = f"mount -t tmpfs -o size=8m tmpfs runs && {command}; code=$?; ls runs; exit $code"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert done.returncode == 2, done.stderr
    assert re.search(r"store=runs: [\d.]+ MB are free, and training needs about [\d.]+ MB; free some", done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert "segments" not in done.stdout


def test_help_helps(tmp_path):
    assert "sweep experiment=quickstart" in proxytrain("--help", cwd=tmp_path).stdout
    text = proxytrain("sweep", "--help", cwd=tmp_path).stdout
    assert "scale=cpu|gpu" in text
    assert re.search(r"schedule=\S*constant\|cosine", text)
    assert "batch_tokens: 1024" in text


def test_cfg_prints_the_composed_configuration(tmp_path):
    assert "width: 48" in proxytrain("sweep", "--cfg", "job", "model.width=48", cwd=tmp_path).stdout
