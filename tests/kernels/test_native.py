"""The functions of C++ against torch's own operations, in float64; how they come to a machine."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from support import TINY, TINY_TEXT, assert_same_bits, outcome, proxytrain, train

from proxytrain.config.schema import Model
from proxytrain.kernels import cpu as native
from proxytrain.kernels import reference as ops
from proxytrain.model.gpt import objective, views
from proxytrain.model.layout import flat_size, layout
from proxytrain.model.parametrization import Scales

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
MODEL = Model(
    width=48,
    depth=2,
    head_size=16,
    context=64,
    mlp="relu2",
    mlp_ratio=4.0,
    rope_base=1e4,
    qk_norm=True,
    tied=False,
    logit_bias=True,
    shift_keys=True,
    conv_attention=3,
    conv_mlp=2,
)
V = 50  # not a whole number of vectors
MODELS = {
    "default": MODEL,
    "shared": replace(MODEL, shared_qk=True, rope_base=1e3),
    "shared, no shift": replace(MODEL, shared_qk=True, shift_keys=False, qk_norm=False),
    "plain": replace(MODEL, shift_keys=False, conv_attention=0, conv_mlp=0, logit_bias=False),
    "no norm": replace(MODEL, qk_norm=False),
    "head of 20": replace(MODEL, width=60, head_size=20, context=37),
    "head of 8": replace(MODEL, head_size=8, context=5),
    "head of 32": replace(MODEL, width=64, head_size=32, context=100),
    "head of 64": replace(MODEL, width=64, head_size=64, context=16),
    "gelu": replace(MODEL, mlp="gelu", conv_attention=2),
    "swiglu": replace(MODEL, mlp="swiglu", tied=True),
}


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    native.library.cache_clear()
    yield
    native.library.cache_clear()


def gradients(model: Model, dtype: torch.dtype, members: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses (K,) and gradients (K, P) at weights that are not the initial ones."""
    weights, T = layout(model, V), model.context
    g = torch.Generator().manual_seed(0)
    flat = (0.2 * torch.randn(members, flat_size(weights), generator=g)).to(dtype).requires_grad_()
    ids, targets = torch.randint(V, (2, members, 3, T), generator=g)
    minimised, loss = objective(views(flat, weights), ids, targets, model, Scales(0.7, 0.5))
    (found,) = torch.autograd.grad(minimised.sum(), flat)
    return loss, found


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_losses_and_gradients_are_torch_s(model):
    loss, found = gradients(model, torch.float32)
    want_loss, want = gradients(model, torch.float64)
    assert native.serves(loss)
    assert not native.serves(want_loss)
    torch.testing.assert_close(loss.double(), want_loss, rtol=1e-6, atol=0)
    for w in layout(model, V):
        at = slice(w.offset, w.offset + w.size)
        error = (found[:, at] - want[:, at]).norm() / want[:, at].norm()
        assert error < 3e-6, w.name


def test_a_nan_is_not_lost():
    for at in range(70):
        x = torch.zeros(1, 1, 70)
        x[0, 0, at] = math.nan
        targets = torch.zeros(1, 1, dtype=torch.long)
        assert ops.cross_entropy(x, targets).isnan()
    rope = torch.ones(32, 1, 8), torch.zeros(32, 1, 8)
    for position in (0, 15, 16, 31):
        for channel in (0, 20, 40):  # query, key, value
            x = torch.ones(1, 32, 48)
            x[0, position, channel] = math.nan
            y = native.attention(x, None, None, rope, 3, 32, 16)
            assert y[0, position].isnan().any()
    x = torch.ones(1, 8, 16)
    x[0, 4, 3] = math.nan
    y = native.normed(x, torch.ones(1, 16), torch.ones(1, 3, 16), 8)[1]
    assert y[0, 4:7].isnan().all()
    assert not y[0, :4].isnan().any()
    assert native.squared_relu(x)[0, 4, 3].isnan()


def test_logits_that_are_far_apart_are_no_trouble():
    x = torch.tensor([[[1e4, -1e4, 0.0], [-3e38, 0.0, 3e38], [88.0, 89.0, -200.0]]]).requires_grad_()
    loss = ops.cross_entropy(x, torch.tensor([[0, 2, 1]]))
    assert loss.tolist()[0][:2] == [0, 0]
    assert loss[0, 2].item() == pytest.approx(math.log1p(math.exp(-1)))
    (slope,) = torch.autograd.grad(loss.sum(), x)
    assert slope[0, :2].abs().max() == 0
    assert slope[0, 2].tolist() == pytest.approx([1 / (1 + math.e), -1 / (1 + math.e), 0])


def test_a_target_that_is_no_token_has_no_loss_and_no_slope():
    x = torch.zeros(1, 2, 5, requires_grad=True)
    loss = ops.cross_entropy(x, torch.tensor([[5, -1]]))
    assert loss.isnan().all()
    (slope,) = torch.autograd.grad(loss.sum(), x)
    assert slope.flatten().tolist() == pytest.approx([0.2] * 10)


SHORT = """
import resource, torch
from proxytrain.kernels import cpu as native
torch.set_num_threads(1)
T = 1_000_000
x, rope = torch.zeros(1, T, 48), (torch.ones(T, 1, 8), torch.ones(T, 1, 8))
assert native.serves(x)
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)
try:
    native.attention(x, None, None, rope, 3, T, 16)
except MemoryError as error:
    print("short of memory in", error)
"""


def test_memory_that_is_short_is_an_error_like_any():
    done = subprocess.run([sys.executable, "-c", SHORT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "short of memory in attention_forward"


def test_without_a_compiler_torch_does_it_and_bits_depend_on_no_pack(ask, tmp_path, corpora, no_compiler):
    found = []
    for K in (1, 3):
        root = tmp_path / f"by {K}"
        root.mkdir()
        (root / "corpora").symlink_to(corpora)
        asked = ask("sweep.grids=[{init_seed:[0,1,2]}]", "tokens=4096", store=root)
        train(asked, largest=K)
        found.append([outcome(asked.store, run.id) for run in asked.runs])
        segments = [json.loads(p.read_text()) for p in root.glob("segments/*/*/segment.json")]
        assert segments
        assert all(s["native"] is False for s in segments)
    for one, three in zip(*found):
        assert_same_bits(one, three)


def test_a_sweep_says_what_a_compiler_would_bring(tmp_path, monkeypatch):
    sweep = "sweep", *TINY_TEXT, *TINY, "tokens=2048", "warmup=512", "sweep.target=null", "sweep.name=s"
    one = proxytrain(*sweep, cwd=tmp_path)
    assert "compiler" not in one.stdout + one.stderr
    monkeypatch.setenv("CXX", "no-such-compiler")
    none = proxytrain(*sweep, "init_seed=5", cwd=tmp_path)
    assert "note: no C++ compiler (no-such-compiler) on the PATH" in none.stdout + none.stderr


CHILD = "import torch; torch.set_num_threads(1); from proxytrain.kernels import cpu; print(cpu.library())"


def library(home: Path, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD],
        env={**os.environ, "XDG_CACHE_HOME": str(home), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_of_workers_that_start_at_once_one_compiles(tmp_path):
    workers = [library(tmp_path) for _ in range(3)]
    said = [w.communicate(timeout=300) for w in workers]
    assert all("CDLL" in out for out, _ in said)
    assert sum("compiling the CPU kernels" in err for _, err in said) == 1
    assert len(list(tmp_path.rglob("native-*.so"))) == 1
    assert "compiling" not in library(tmp_path).communicate()[1]


def test_one_that_is_killed_while_it_compiles_leaves_nothing_that_is_taken_for_whole(tmp_path):
    worker = library(tmp_path)
    assert "compiling" in worker.stderr.readline()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert not list(tmp_path.rglob("native-*.so"))
    out, err = library(tmp_path).communicate(timeout=300)
    assert "CDLL" in out
    assert "compiling" in err


def test_a_damaged_file_is_made_anew(tmp_path):
    library(tmp_path).communicate(timeout=300)
    (path,) = tmp_path.rglob("native-*.so")
    path.write_bytes(b"nonsense" + path.read_bytes())
    out, err = library(tmp_path).communicate(timeout=300)
    assert "CDLL" in out
    assert "compiling" in err


def test_a_full_disk_under_stderr_is_no_trouble(tmp_path):
    with open("/dev/full", "w") as full:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
        child = [sys.executable, "-c", CHILD]
        out = subprocess.run(child, env=environment, stdout=subprocess.PIPE, stderr=full, text=True, check=False).stdout
    assert "CDLL" in out


@pytest.mark.parametrize("compiler", ["false", "true"])
def test_a_compiler_that_cannot_is_told_and_done_without(tmp_path, compiler):
    out, _ = library(tmp_path, CXX=compiler).communicate()
    assert f"/{compiler} cannot be made use of" in out
    assert out.splitlines()[-1] == "None"
    assert not [p for p in tmp_path.rglob("native-*") if p.suffix != ".lock"]


def test_where_the_cache_cannot_be_written_to_they_last_as_long_as_the_process():
    child = "from proxytrain.kernels.cache import folder; print(folder()); assert folder().is_dir()"
    environment = {**os.environ, "XDG_CACHE_HOME": "/proc/none"}
    found = subprocess.run([sys.executable, "-c", child], env=environment, capture_output=True, text=True, check=True)
    assert not Path(found.stdout.strip()).exists()
