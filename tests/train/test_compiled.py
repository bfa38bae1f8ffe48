"""Losses of compiled packs agree with eager ones; on a CPU bits do not depend on the pack (design, section 7.2)."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import TINY, TINY_TEXT, after, assert_same_bits, outcome, planned, proxytrain, train
from torch._dynamo.utils import counters

from proxytrain.errors import RequestError
from proxytrain.launch.machine import machine
from proxytrain.plan import cost
from proxytrain.plan.pack import MOST_SEQUENCES
from proxytrain.train import compiled
from proxytrain.train.loop import Interrupted
from proxytrain.train.members import Active, Rows
from proxytrain.train.program import ready, rows
from proxytrain.train.update import Update, fresh

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
SMALL = ("model.depth=1", "schedule=constant")
GRID = "sweep.grids=[{init_seed:[0,1],lr:[.016,1e30],tokens:[51200]},{init_seed:[2,3],tokens:[25600],data_seed:[0,7]}]"
SEED_NOISE = 0.004  # relative SD of a final loss over seeds, at these sizes (FINDINGS.md: .25 to .64%)


def both(ask, tmp_path, corpora, *overrides: str, **how) -> list[dict[str, dict[str, np.ndarray]]]:
    """Outcomes of a sweep trained eagerly, and as `how` says."""
    ways = {"eager": {}, "other": how}
    return [trained(ask, tmp_path / name, corpora, *overrides, **options) for name, options in ways.items()]


def trained(ask, root, corpora, *overrides: str, largest: int = 16, stops: int = 0, **how):
    """Outcomes of a sweep in packs of at most `largest`, stopped again and again after so many updates."""
    root.mkdir()
    (root / "corpora").symlink_to(corpora)
    asked = ask(*overrides, store=root)
    made = planned(asked, largest=largest)
    while True:
        try:
            train(asked, made, should_stop=after(stops) if stops else lambda: False, **how)
            break
        except Interrupted:
            pass
    done = [run.id for run in asked.runs if asked.store.result(run.id)["status"] == "done"]
    return {run_id: outcome(asked.store, run_id) for run_id in done}


@needs_compiler
def test_compiled_losses_agree_with_eager_ones_as_members_leave(ask, tmp_path, corpora):
    eager, other = both(ask, tmp_path, corpora, GRID, *SMALL, compiled=True)
    assert len(eager) == 6
    agree(eager, other)
    for run_id, want in eager.items():
        first = {n: (v[0], other[run_id][n][0]) for n, v in want.items() if n.startswith("telemetry.")}
        assert len(first) > 20
        assert all(b == pytest.approx(a, rel=0.01, abs=1e-3) for a, b in first.values())


@needs_compiler
@pytest.mark.skipif(not compiled.KEEPS, reason="before torch 2.13")
def test_compiled_bits_depend_on_neither_pack_nor_interruptions(ask, tmp_path, corpora):
    grids = "{tokens:[4096,8192,16384],init_seed:[0,1],schedule:[wsd,cosine]},{lr:[1e30],init_seed:[0,1]}"
    sweep = f"sweep.grids=[{grids}]", "model.depth=1", "train.checkpoint_seconds=1e9"
    want = trained(ask, tmp_path / "16", corpora, *sweep, compiled=True)
    assert len(want) == 12
    for largest, stops in ((1, 0), (3, 23)):
        found = trained(ask, tmp_path / str(largest), corpora, *sweep, largest=largest, stops=stops, compiled=True)
        assert found.keys() == want.keys()
        for run_id in want:
            assert_same_bits(found[run_id], want[run_id])


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(("optimizer", "kept"), [("muon", True), ("sgd_sai", True), ("muon", False)])
def test_compiled_updates_of_other_optimizers_agree_with_eager_ones(
    ask, tmp_path, corpora, monkeypatch, optimizer, kept
):
    monkeypatch.setattr(compiled, "KEEPS", kept)  # False: as before torch 2.13, and on a GPU
    agree(*both(ask, tmp_path, corpora, "tokens=5120", f"optimizer={optimizer}", *SMALL, compiled=True))


@pytest.mark.slow
@needs_compiler
def test_so_they_do_in_uneven_micro_batches(ask, tmp_path, corpora):
    agree(*both(ask, tmp_path, corpora, "tokens=5120", *SMALL, compiled=True, micro_batches=3))
    (pack,) = planned(ask("tokens=5120", *SMALL)).packs
    assert ready(pack.members[0].recipe, 3, "cpu")


@pytest.mark.slow
@needs_compiler
def test_so_they_do_where_logits_are_read_out_in_pieces(ask, tmp_path, corpora, monkeypatch, cache):
    monkeypatch.setattr("proxytrain.model.LOGITS", 256 * 100)
    agree(*both(ask, tmp_path, corpora, "sweep.grids=[{init_seed:[0,1]}]", "tokens=25600", *SMALL, compiled=True))


def agree(eager: dict[str, dict[str, np.ndarray]], other: dict[str, dict[str, np.ndarray]]) -> None:
    assert eager.keys() == other.keys()
    for run_id, want in eager.items():
        got = other[run_id]
        assert got["loss"][0] == pytest.approx(want["loss"][0], rel=1e-5)
        assert got["loss"][:200] == pytest.approx(want["loss"][:200], rel=SEED_NOISE / 10)
        assert got["final_loss"] == pytest.approx(want["final_loss"], rel=SEED_NOISE / 10)


@needs_compiler
def test_a_compiled_sweep_says_so_in_its_segments(tmp_path, corpora):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    proxytrain("sweep", *TINY_TEXT, *TINY, *SMALL, "train.compile=on", "sweep.name=s", "tokens=2048", cwd=tmp_path)
    segments = [json.loads(p.read_text()) for p in tmp_path.glob("runs/segments/*/*/segment.json")]
    assert segments
    assert all(s["status"] == "done" and s["compiled"] is True for s in segments)


@needs_compiler
def test_a_program_that_would_be_compiled_again_is_an_error(ask):
    asked = ask(*SMALL)
    (pack,) = planned(asked).packs
    buffers = Rows.allocate([Active(i, m, 0) for i, m in enumerate(pack.members)], torch.device("cpu"))
    step = Update(buffers, pack.members[0].recipe, asked.corpus, 1, torch.device("cpu"), compiled=True)
    step.updates(2, lambda: False)
    assert step.program is not None
    (gradients, ((weights, grad, ids, targets), fixed)), *_ = step.program.steps
    step.program.steps = [(gradients, ((weights, grad, ids.int(), targets), fixed))]
    with pytest.raises(RuntimeError, match=r"[Rr]ecompil|[Gg]uard.* failed"):
        step.updates(1, lambda: False)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of programs, and a process that has none; what torch has compiled stays, for time."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(compiled._cache_dir())))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "PROGRAMS", {})
    return tmp_path / "proxytrain"


def losses(ask, seeds: list[int], *more: str) -> np.ndarray:
    """Of three compiled updates of a pack with these seeds, a row a seed."""
    asked = ask(*SMALL, f"sweep.grids=[{{init_seed:{seeds}}}]".replace(" ", ""), *more)
    (pack,) = planned(asked, largest=16).packs
    update = fresh(pack, asked.corpus, 1, torch.device("cpu"), compiled=True)
    update.updates(3, lambda: False)
    found = {a.member.recipe.init_seed: np.concatenate(a.curve["loss"]) for a in update.rows.active}
    return np.stack([found[seed] for seed in seeds])


@needs_compiler
def test_on_a_cpu_a_shape_compiles_once_for_packs_of_any_size(ask, cache):
    three = losses(ask, [0, 1, 2])
    files = set(cache.rglob("programs/*.bin"))
    assert len(files) == 2  # gradients, and the optimizer
    for seeds in ([0, 1, 2, 3, 4, 5], [0, 1], [0]):
        assert np.array_equal(losses(ask, seeds)[:3], three[: len(seeds)])
    assert set(cache.rglob("programs/*.bin")) == files
    assert not np.array_equal(losses(ask, [0, 1], "optimizer.beta1=.5"), three[:2])
    assert len(set(cache.rglob("programs/*.bin"))) == 3  # another optimizer, but not other gradients


def test_where_the_cache_cannot_be_written_to_programs_last_as_long_as_the_process():
    child = "from proxytrain.train.compiled import _cache_dir; print(_cache_dir())"
    environment = {**os.environ, "XDG_CACHE_HOME": "/proc/none"}
    code = f"{child}; assert _cache_dir().is_dir()"
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not Path(found.stdout.strip()).exists()


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("change", ["optimizer.z_loss=.1", "parametrization.base_width=8", "batch_tokens=1024"])
def test_what_a_program_holds_tells_it_from_others(ask, cache, change):
    plain = losses(ask, [0, 1])
    assert not np.array_equal(losses(ask, [0, 1], change), plain)
    assert len(set(cache.rglob("programs/*.bin"))) > 2


@needs_compiler
def test_a_program_is_loaded_and_not_traced_again_unless_its_file_is_damaged(ask, cache, monkeypatch):
    want = losses(ask, [0, 1])
    traced = counters["stats"]["unique_graphs"]
    monkeypatch.setattr(compiled, "PROGRAMS", {})
    assert np.array_equal(losses(ask, [0, 1]), want)
    assert counters["stats"]["unique_graphs"] == traced
    monkeypatch.setattr(compiled, "PROGRAMS", {})
    one, other = cache.rglob("programs/*.bin")
    one.write_bytes(one.read_bytes()[: one.stat().st_size // 2])
    other.write_bytes(b"nonsense" + other.read_bytes())
    assert np.array_equal(losses(ask, [0, 1]), want)
    assert counters["stats"]["unique_graphs"] > traced


@pytest.mark.parametrize(
    ("members", "largest", "expected"), [(7, 7, 7), (5, 7, 6), (3, 7, 3), (9, 10, 10), (13, 64, 16)]
)
def test_a_pack_that_shrinks_meets_few_sizes_where_each_is_compiled(members, largest, expected):
    assert rows(members, largest, sequences=8, device="cuda") == expected
    assert rows(members, largest, sequences=8, device="cpu") == (members if compiled.KEEPS else expected)


def test_a_pack_is_not_filled_up_beyond_what_attention_takes():
    assert rows(5, 7, sequences=MOST_SEQUENCES // 5, device="cuda") == 5


def test_reference_mode_is_never_compiled_unless_asked(ask):
    asked = ask("tokens=4B", "data.allow_repeat=true", "train.checkpoint_seconds=1")
    (pack,) = planned(asked).packs
    auto, on, off = (dataclasses.replace(asked.config.train, compile=c) for c in ("auto", "on", "off"))
    assert not cost.compiled(pack, auto, "cpu", threads=1)
    assert cost.compiled(pack, auto, "cpu", threads=2)
    assert cost.compiled(pack, on, "cpu", threads=1)
    assert not cost.compiled(pack, off, "cpu", threads=2)
    (short,) = planned(ask("tokens=4096")).packs
    assert not cost.compiled(short, auto, "cpu", threads=2)


def test_without_a_compiler_on_is_refused_and_auto_does_without(ask, monkeypatch):
    asked = ask("train.compile=on")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RequestError, match=r"train.compile=on: .* there is no no-such-compiler"):
        machine(asked.config)
    assert machine(ask("train.compile=auto").config).device == "cpu"
