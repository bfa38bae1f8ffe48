"""On a GPU: losses are those of the CPU, however a pack is trained; memory is as the model says, or is made do with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import TINY, TINY_TEXT, outcome, planned, proxytrain, train
from test_compiled import GRID, SEED_NOISE, SMALL, agree, both

from proxytrain.kernels import reference as ops
from proxytrain.model import accounting
from proxytrain.plan.pack import MOST_SEQUENCES, Member, Pack
from proxytrain.plan.share import forest
from proxytrain.train.loop import Interrupted
from proxytrain.train.update import fresh

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
GPU = torch.device("cuda")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("micro_batches", [1, 4])
def test_it_gives_the_losses_of_the_cpu(ask, tmp_path, corpora, compiled, micro_batches):
    how = {"compiled": compiled, "micro_batches": micro_batches, "device": GPU}
    eager, other = both(ask, tmp_path, corpora, GRID, *SMALL, **how)
    assert len(eager) == 6
    agree(eager, other)


@pytest.mark.parametrize("optimizer", ["muon", "sgd_sai"])
def test_so_do_other_optimizers(ask, tmp_path, corpora, optimizer):
    agree(*both(ask, tmp_path, corpora, "tokens=5120", f"optimizer={optimizer}", *SMALL, compiled=True, device=GPU))


@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_is_float32_within_the_noise_of_seeds(ask, tmp_path, corpora, compiled):
    found = []
    for precision, device, way in (("float32", torch.device("cpu"), False), ("bfloat16", GPU, compiled)):
        root = tmp_path / precision
        root.mkdir()
        (root / "corpora").symlink_to(corpora)
        asked = ask("tokens=51200", "init_seed=3", *SMALL, f"train.precision={precision}", store=root)
        train(asked, compiled=way, device=device)
        found.append(outcome(asked.store, asked.runs[0].id))
    assert found[1]["loss"][0] == pytest.approx(found[0]["loss"][0], rel=0.01)
    assert found[1]["final_loss"][0] == pytest.approx(found[0]["final_loss"][0], rel=3 * SEED_NOISE)


def test_a_captured_program_is_replayed(ask):
    asked = ask(*SMALL)
    (pack,) = planned(asked).packs
    step = fresh(pack, asked.corpus, 1, GPU, compiled=True)
    step.updates(8, lambda: False)
    assert step.program is not None
    assert step.program.graph is not None


SHAPES = [(64, 16), (40, 8), (64, 64), (128, 32), (128, 64)]


@pytest.mark.parametrize(
    ("precision", "T", "h"),
    [(p, T, h) for p in (torch.float32, torch.bfloat16) for T, h in SHAPES if ops.SHORT[p.itemsize] >= T],
)
def test_attention_of_short_sequences_is_that_of_torch(T, h, precision):
    """Queries, keys and values lie side by side, as the product makes them, or apart."""
    qkv = torch.randn(5, T, 9 * h, device=GPU, dtype=precision).requires_grad_()
    grad = torch.randn(5, T, 3, h, device=GPU, dtype=precision)
    q, k, v = (x.reshape(5, T, 3, h) for x in qkv.split(3 * h, 2))
    out = ops.ShortAttention.apply(q.contiguous(), k, v)
    heads = (x.double().transpose(1, 2) for x in (q, k, v))
    wanted = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2)
    pairs = [(out, wanted), *zip(torch.autograd.grad(out, qkv, grad), torch.autograd.grad(wanted, qkv, grad.double()))]
    for ours, exact in pairs:
        error = (ours - exact).norm() / exact.norm()
        assert error <= (1e-6 if precision == torch.float32 else 0.01)


def test_as_many_sequences_as_attention_takes_at_once(ask):
    """One more would not be taken; plans do not ask for it (tests/plan)."""
    members = MOST_SEQUENCES // 5000
    seeds = f"sweep.grids=[{{init_seed:{list(range(members))}}}]".replace(" ", "")
    asked = ask(f"batch_tokens={32 * (MOST_SEQUENCES // members)}", "tokens=2M", seeds, *SMALL)
    pack = Pack(tuple(Member((n,)) for n in forest(asked.runs).values()))
    losses = []
    for parts in (1, 5):
        step = fresh(pack, asked.corpus, parts, GPU)
        step.updates(2, lambda: False)
        losses.append([a.curve["loss"][0].tolist() for a in step.rows.active])
    assert losses[0] == [pytest.approx(row, rel=1e-5) for row in losses[1]]


def test_a_pack_goes_on_from_its_checkpoint(ask, tmp_path, corpora):
    asked = ask("tokens=25600", "sweep.grids=[{init_seed:[0,1]}]", *SMALL)
    looks = iter(range(1000))
    with pytest.raises(Interrupted):
        train(asked, device=GPU, compiled=True, should_stop=lambda: next(looks) >= 40)
    train(asked, device=GPU, compiled=True)
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "corpora").symlink_to(corpora)
    again = ask("tokens=25600", "sweep.grids=[{init_seed:[0,1]}]", *SMALL, store=whole)
    train(again, device=GPU, compiled=True)
    ids = [run.id for run in asked.runs]
    agree(*({run_id: outcome(a.store, run_id) for run_id in ids} for a in (again, asked)))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", ["model.width=64 batch_tokens=8192", "model.width=256 batch_tokens=2048"])
def test_the_memory_model_is_an_upper_bound(ask, shape, precision, compiled):
    own = [f"train.precision={precision}", "model.head_size=16", "model.context=64", "warmup=0", "schedule=constant"]
    asked = ask(*own, *shape.split(), "sweep.grids=[{init_seed:[0,1,2,3]}]", "data.allow_repeat=true")
    recipe = asked.runs[0].recipe
    pack = Pack(tuple(Member((n,)) for n in forest(asked.runs).values()))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step = fresh(pack, asked.corpus, 1, GPU, compiled)
    for _ in range(8):
        step.updates(1, lambda: False)
    used = torch.cuda.max_memory_allocated() - before
    how = {"device": "cuda", "precision": recipe.precision}
    estimate = accounting.pack_bytes(recipe.model, recipe.vocab, 4, recipe.batch_tokens, **how)
    assert used <= estimate


def test_packs_for_which_a_gpu_is_too_small_read_less_at_once(tmp_path: Path, corpora: Path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    asked = [*TINY_TEXT, *TINY, *SMALL, "model.width=32", "batch_tokens=65536", "tokens=131072", "sweep.name=s"]
    asked += ["train.device=cuda", "train.memory=100B", "data.allow_repeat=true", "sweep.grids=[{init_seed:[0,1]}]"]
    proxytrain("plan", *asked, cwd=tmp_path)
    fraction = 400e6 / torch.cuda.get_device_properties(0).total_memory
    code = f"import torch\ntorch.cuda.set_per_process_memory_fraction({fraction})\n"
    code += "from proxytrain.__main__ import main\nraise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "work", "sweep.name=s", "train.device=cuda"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "out of memory with 2 members; updates in 2 parts from now on" in done.stdout
    assert "s: 2 done" in proxytrain("status", "sweep.name=s", cwd=tmp_path).stdout


def test_a_sweep_finds_it_and_is_compiled_there(tmp_path: Path, corpora: Path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    asked = [*TINY_TEXT, *TINY, *SMALL, "sweep.name=s", "train.compile=on", "train.device=auto"]
    asked += ["sweep.grids=[{init_seed:[0,1],tokens:[2048,4096]}]", "train.precision=bfloat16"]
    assert "ms an update" in proxytrain("probe", *asked, cwd=tmp_path).stderr
    proxytrain("sweep", *asked, cwd=tmp_path)
    segments = [json.loads(p.read_text()) for p in tmp_path.glob("runs/segments/*/*/segment.json")]
    assert segments
    assert all(s["compiled"] is True and s["device"] == torch.cuda.get_device_name() for s in segments)
