"""A store from a stranger runs no code and writes nothing outside itself; a store in trouble ends in one clear line."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import TINY, TINY_TEXT, planned, proxytrain, train

from proxytrain.errors import RequestError
from proxytrain.files.documents import checksum
from proxytrain.plan import freeze
from proxytrain.plan.pack import Pack
from proxytrain.store.store import Store
from proxytrain.train.loop import Interrupted
from proxytrain.train.publish import Broken

WORK = ["work", "sweep.name=s", "train.device=cpu"]
SWEEP = [*TINY_TEXT, *TINY, "sweep.name=s", "sweep.grids=[{tokens:[4096,8192]}]", "launch.workers=1"]


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.fixture(scope="module")
def done_once(tmp_path_factory, corpora) -> tuple[Path, Path]:
    """A folder with a plan that waits for workers, and one where they are done."""
    folders = []
    for verb in ("plan", "sweep"):
        folder = tmp_path_factory.mktemp(verb)
        (folder / "runs").mkdir()
        (folder / "runs" / "corpora").symlink_to(corpora)
        proxytrain(verb, *SWEEP, cwd=folder)
        folders.append(folder)
    return folders[0], folders[1]


@pytest.fixture
def here(tmp_path: Path, done_once) -> Path:
    """A folder with a plan that waits for workers."""
    shutil.copytree(done_once[0], tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def swept(tmp_path: Path, done_once) -> Path:
    """A folder in which the sweep is done."""
    shutil.copytree(done_once[1], tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


def one_line(done: subprocess.CompletedProcess[str], says: str) -> None:
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def edited(here: Path, change, *, signed: bool = True) -> None:
    """The plan with a change, and its ids and checksum made to fit, as a stranger would."""
    path = here / "runs/sweeps/s/plan.json"
    content = json.loads(path.read_text())
    change(content)
    content.pop("checksum")
    path.write_text(json.dumps({**content, "checksum": checksum(content)} if signed else content))


def test_pickles_in_states_and_curves_are_not_opened(ask, tmp_path):
    bomb = np.array([Bomb(tmp_path / "exploded")], dtype=object)
    asked = ask("sweep.grids=[{tokens:[4096,8192]}]")
    made = planned(asked)
    calls = iter(range(1000))
    with pytest.raises(Interrupted):
        train(asked, made, should_stop=lambda: next(calls) > 8)
    for path in asked.folder.glob("packs/*/attempt-*/*.npz"):
        with open(path, "wb") as file:
            np.savez(file, meta=bomb, weights=bomb, allow_pickle=True)
    train(asked, made)
    for path in asked.store.root.glob("segments/*/*/curve.npz"):
        with open(path, "wb") as file:
            np.savez(file, tokens=bomb, allow_pickle=True)
    for path in asked.store.root.glob("segments/*/*/state.npy"):
        np.save(path, bomb, allow_pickle=True)
    with pytest.raises(RequestError, match="not a whole curve"):
        asked.store.curve(asked.runs[0].id)
    longer = ask("sweep.grids=[{tokens:[4096,8192,16384]}]")
    with pytest.raises(Broken, match="it is removed and made again"):
        train(longer, planned(longer))
    for path in asked.store.root.glob("segments/*/*/state.npy"):
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(Broken, match="it is removed and made again"):
        train(longer, planned(longer))
    assert not (tmp_path / "exploded").exists()


def test_a_file_of_ones_own_with_the_name_of_one_of_ours_is_not_passed_over(here):
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "averaging.yaml").write_text("# @package _global_\ntokens: 1M\n")
    done = proxytrain("plan", "experiment=averaging", "--config-dir", str(here / "conf"), cwd=here, check=2)
    assert "experiment/averaging.yaml is the name of one of ours" in done.stderr


def test_a_yaml_that_would_run_code_is_data(here):
    folder = here / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "x.yaml").write_text("# @package _global_\nstore: !!python/object/apply:os.mkdir [exploded]\n")
    done = proxytrain("plan", "experiment=x", "--config-dir", str(here / "conf"), cwd=here, check=2)
    one_line(done, "python/object/apply:os.mkdir")
    assert not (here / "exploded").exists()


@pytest.mark.parametrize("name", ["../../../../escaped", "/tmp/escaped"])
def test_run_ids_and_lineages_cannot_lead_out_of_the_store(here, name):
    def rename_runs(content: dict) -> None:
        content["runs"] = dict.fromkeys([name], next(iter(content["runs"].values())))

    def rename_lineages(content: dict) -> None:
        for node in (n for p in content["packs"] for m in p["members"] for n in m):
            node["lineage"] = name

    before = (here / "runs/sweeps/s/plan.json").read_text()
    for change in (rename_runs, rename_lineages):
        (here / "runs/sweeps/s/plan.json").write_text(before)
        edited(here, change)
        one_line(proxytrain("status", "sweep.name=s", cwd=here, check=2), "not a whole plan")
    with pytest.raises(RequestError, match="no id of a run"):
        Store(here / "runs").curve(name)


def test_a_plan_edited_by_hand_is_refused(here):
    def faster(content: dict) -> None:
        for node in (n for p in content["packs"] for m in p["members"] for n in m):
            node["lr"] *= 2

    path = here / "runs/sweeps/s/plan.json"
    content = json.loads(path.read_text())
    faster(content)
    path.write_text(json.dumps(content))
    one_line(proxytrain(*WORK, cwd=here, check=2), "edited by hand?")
    assert not (here / "runs/segments").exists()


@pytest.mark.parametrize("link", ["segments", "runs", "sweeps", "sweeps/s", "sweeps/s/packs"])
def test_nothing_is_written_through_links_that_lead_out(here, link):
    outside = here / "outside"
    outside.mkdir()
    inner = here / "runs" / link
    if inner.exists():
        shutil.copytree(inner, outside, dirs_exist_ok=True)
        shutil.rmtree(inner)
    inner.symlink_to(outside)
    before = {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()}
    done = proxytrain("sweep", *SWEEP, cwd=here, check=None)
    assert done.returncode in (1, 2), done.stderr
    assert {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()} == before
    assert "Traceback" not in done.stderr


def test_a_log_is_not_written_through_a_link(here):
    (here / "bashrc").write_text("mine")
    (here / "runs/sweeps/s/worker-0.log").symlink_to(here / "bashrc")
    one_line(proxytrain("sweep", "--quiet", *SWEEP, cwd=here, check=2), "worker-0.log")
    assert (here / "bashrc").read_text() == "mine"


def test_checkpoints_of_others_are_not_pruned_through_links(ask, tmp_path):
    asked = ask("train.checkpoint_seconds=1e-6")
    made = planned(asked)
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "data.npz").write_text("mine")
    folder = asked.folder / "packs" / made.packs[0].id
    folder.mkdir(parents=True)
    (folder / "attempt-001-evil").symlink_to(outside)
    train(asked, made)
    assert (outside / "data.npz").read_text() == "mine"


def test_a_store_of_a_newer_version_is_refused(here):
    (here / "runs/store.json").write_text('{"format": 2}')
    for verb in (["sweep", *SWEEP], WORK, ["status"], ["gc"]):
        one_line(proxytrain(*verb, cwd=here, check=2), "store=runs: of format 2, this version reads 1")


@pytest.mark.parametrize("file", ["runs/*/result.json", "segments/*/*/segment.json"])
@pytest.mark.parametrize("content", ["", "{}"])
def test_results_and_segments_that_are_not_whole_are_named(swept, file, content):
    here = swept
    path = sorted((here / "runs").glob(file))[0]
    path.write_text(content)
    done = proxytrain("status", "--check", "sweep.name=s", cwd=here, check=1)
    assert str(path.relative_to(here)) in done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    for line in done.stdout.splitlines():  # as it says
        for folder in re.findall(r"delete (\S+?)(?: |,|$)", line):
            shutil.rmtree(here / folder, ignore_errors=True)
    assert "2 runs done" in proxytrain("sweep", *SWEEP, cwd=here).stdout
    proxytrain("status", "--check", "sweep.name=s", cwd=here)


def test_a_full_store_ends_in_one_line_and_loses_nothing(here):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    done = proxytrain(*WORK, cwd=here, check=2, preexec_fn=limit)
    one_line(done, "store=runs: File too large")
    assert "the same command goes on" in done.stderr
    assert not [p for p in here.glob("runs/**/*") if p.name.endswith(".tmp") or p.name in ("claim", "failed-1.json")]
    proxytrain(*WORK, cwd=here)
    assert "s: 2 done" in proxytrain("status", "sweep.name=s", cwd=here).stdout


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare to mount a folder read-only")
def test_a_read_only_store_ends_in_one_line(here):
    script = "mount --bind runs runs && mount -o remount,ro,bind runs && exec " + " ".join(
        [sys.executable, "-m", "proxytrain", *WORK]
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=here, capture_output=True, text=True)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert done.returncode == 2, done.stderr
    one_line(done, "store=runs: Read-only file system")


def test_a_plan_s_packs_are_those_of_its_nodes(here):
    made = freeze.load(here / "runs/sweeps/s/plan.json")
    assert all(isinstance(p, Pack) for p in made.packs)
    (here / "runs/sweeps/s").rename(here / "runs/sweeps/t")
    assert freeze.load(here / "runs/sweeps/t/plan.json").name == "t"  # a folder may be renamed
