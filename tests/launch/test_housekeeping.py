"""What a store weighs, what of it can go, and whether it is whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from support import assert_same_bits, outcome, planned, train

from proxytrain.errors import RequestError
from proxytrain.files.atomic import temporary
from proxytrain.launch.housekeeping import collect, disk_use, problems
from proxytrain.plan import freeze
from proxytrain.train.loop import Interrupted


@pytest.fixture
def swept(ask):
    asked = ask("sweep.grids=[{tokens:[4096,8192],init_seed:[0,1]}]", "sweep.name=s")
    made = planned(asked)
    freeze.save(made, asked.folder / "plan.json")
    train(asked, made)
    for attempt in asked.folder.glob("packs/*/attempt-*"):
        shutil.rmtree(attempt)  # as workers do
    return asked, made


def dead_writer() -> str:
    """The name of a process of this machine that is gone."""
    code = "from proxytrain import process; print(process.name())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_gc_frees_what_nothing_waits_for_and_results_stay(swept):
    asked, _ = swept
    before = {run.id: outcome(asked.store, run.id) for run in asked.runs}
    states = list(asked.store.root.glob("segments/*/*/state.npy"))
    use = disk_use(asked.store)
    assert use["states"] == sum(p.stat().st_size for p in states)
    said = collect(asked.store, "final", dry_run=True)
    assert all(p.exists() for p in states)
    assert collect(asked.store, "all", dry_run=False) == {}
    assert collect(asked.store, "final", dry_run=False) == said == {"states": (len(states), use["states"])}
    assert "states" not in disk_use(asked.store)
    for run in asked.runs:
        after = outcome(asked.store, run.id)
        assert_same_bits({k: v for k, v in after.items() if k != "state"}, before[run.id])
    assert collect(asked.store, "none", dry_run=False)["weights"][0] == len(asked.runs)
    assert asked.store.result(asked.runs[0].id).status == "done"


def test_gc_touches_nothing_that_is_waited_for(ask):
    asked = ask("sweep.grids=[{tokens:[4096,8192]}]", "sweep.name=s")
    made = planned(asked)
    freeze.save(made, asked.folder / "plan.json")
    calls = iter(range(1000))
    with pytest.raises(Interrupted):
        train(asked, made, should_stop=lambda: next(calls) > 20)
    kept = {p for p in asked.store.root.rglob("*") if p.is_file()}
    assert [p for p in kept if p.name.startswith("state-")]
    assert collect(asked.store, "none", dry_run=False).keys() <= {"weights"}
    assert {p for p in asked.store.root.rglob("*") if p.is_file() and p.suffix != ".safetensors"} == {
        p for p in kept if p.suffix != ".safetensors"
    }


def test_a_store_that_is_whole_has_no_problems(swept):
    asked, made = swept
    assert list(problems(asked.store, made)) == []


@pytest.mark.parametrize(
    "damage",
    ["segments/*/*/segment.json", "segments/*/*/curve.npz", "segments/*/*/state.npy", "runs/*/result.json"],
)
@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2]"])
def test_damage_is_named_file_by_file(swept, damage, content):
    asked, made = swept
    path = sorted(asked.store.root.glob(damage))[0]
    path.write_bytes(content)
    found = list(problems(asked.store, made))
    assert found
    assert all(str(path) in line or "curve.npz" in line for line in found)


def test_one_changed_bit_of_a_state_is_seen(swept):
    asked, made = swept
    path = sorted(asked.store.root.glob("segments/*/*/state.npy"))[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert [line for line in problems(asked.store, made) if f"{path}: not a whole state (its checksum differs)" in line]


def test_what_the_dead_left_is_named_and_collected(swept):
    asked, made = swept
    owner = dead_writer()
    segment = next(asked.store.root.glob("segments/*/*"))
    left = [segment.parent / f".x.{owner}.1234.tmp", asked.folder / f".plan.json.{owner}.1234.tmp"]
    for path in left:
        path.write_text("half")
    mine = temporary(segment.parent / "x")
    mine.write_text("a live process's")
    claim = asked.folder / "packs" / made.packs[0].id / "claim"
    claim.write_text(json.dumps({"owner": owner, "token": "t"}))
    lines = list(problems(asked.store, made))
    assert len(lines) == 3
    assert all(any(str(p) in line for line in lines) for p in [*left, claim])
    assert collect(asked.store, "all", dry_run=False)["temporary files"][0] == 2
    assert mine.exists()


def test_gc_follows_no_links(swept, tmp_path):
    asked, _ = swept
    outside = tmp_path / "outside"
    (outside / "1").mkdir(parents=True)
    (outside / "1" / "state.npy").write_text("precious")
    (asked.store.root / "segments" / "0123456789abcdef").symlink_to(outside)
    with pytest.raises(RequestError, match="a link that leads out of the store"):
        collect(asked.store, "final", dry_run=False)
    assert (outside / "1" / "state.npy").read_text() == "precious"
