"""What a plan says of time and memory: estimates are marked, and give way to what was measured."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import TINY, TINY_TEXT, proxytrain

from proxytrain.config.schema import Model
from proxytrain.model import accounting

SWEEP = [*TINY_TEXT, *TINY, "sweep.name=s", "sweep.grids=[{init_seed:[0,1,2],tokens:[8192,16384]}]", "launch.workers=1"]


@pytest.fixture
def here(tmp_path: Path, corpora: Path) -> Path:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    return tmp_path


def packs(out: str) -> list[tuple[str, float, float]]:
    """(mark, seconds, seconds at full speed) of each pack that `plan` lists."""
    found = re.findall(r"^[0-9a-f]{16}(?: +\S+){4} ([~ ]) +(\d+) [~ ] *[\d.]+% +(\d+) ~", out, re.MULTILINE)
    return [(mark, float(seconds), float(bound)) for mark, seconds, bound in found]


def test_a_probe_replaces_estimated_times(here):
    before = proxytrain("plan", *SWEEP, cwd=here).stdout
    assert [mark for mark, _, _ in packs(before)] == ["~", "~"]
    assert "estimates; `proxytrain probe` measures them" in before
    said = proxytrain("probe", *SWEEP, cwd=here).stderr
    assert "width 16, 3 members, eager:" in said
    after = proxytrain("plan", *SWEEP, cwd=here).stdout
    assert [mark for mark, _, _ in packs(after)] == [" ", " "]
    assert all(bound <= seconds for _, seconds, bound in packs(after))
    assert "measured here" in after
    (machine,) = json.loads((here / "runs/speeds.json").read_text()).values()
    assert machine["flops"] > 1e9
    assert not list(here.glob("runs/segments/*"))


CAPTURED: dict[str, Any] = {"check": True, "capture_output": True, "text": True}
PEAK = """
import gc, sys, torch
from proxytrain.launch.settle import settle
from proxytrain.sweep.request import request
from proxytrain.plan.pack import Member, Pack
from proxytrain.plan.share import forest
from proxytrain.monitor.console import Console
from proxytrain.train.update import fresh

def memory(what):
    return int(next(line for line in open("/proc/self/status") if line.startswith(what)).split()[1]) * 1024

settle(1)
count, *words = sys.argv[1:]
asked = request(words, None, Console(quiet=True))
pack = Pack(tuple(Member((n,)) for n in forest(asked.runs).values()))
small = fresh(Pack(pack.members[:1]), asked.corpus, asked.runs[0].recipe.batch_tokens // 256, torch.device("cpu"))
small.updates(1, lambda: False)  # loads what the first update loads
del small
gc.collect()
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
step = fresh(pack, asked.corpus, 1, torch.device("cpu"))
for _ in range(int(count)):
    step.updates(1, lambda: False)
print(memory("VmHWM") - before)
"""


def peak(updates: int, asked: list[str], here: Path, **environment: str) -> int:
    """Bytes at most that so many updates, each a call by itself, use beyond what a process of torch has anyway."""
    command = [sys.executable, "-c", PEAK, str(updates), *asked]
    return int(subprocess.run(command, cwd=here, env=os.environ | environment, **CAPTURED).stdout)


def four(*shape: str) -> tuple[list[str], int]:
    """The words for four members of a shape, and what the memory model says of them."""
    model = ["model.head_size=16", "model.context=64", "warmup=0", "tokens=4M", "schedule=constant"]
    asked = [*TINY_TEXT, *TINY, *model, *shape, "sweep.grids=[{init_seed:[0,1,2,3]}]"]
    keys = dict(o.split("=", 1) for o in asked)
    width, context, batch = (int(keys[k]) for k in ("model.width", "model.context", "batch_tokens"))
    mlp, shared = keys.get("model.mlp", "relu2"), "model.shared_qk" in keys
    shaped = Model(
        width=width,
        depth=2,
        head_size=16,
        context=context,
        mlp=mlp,
        mlp_ratio=4.0,
        rope_base=1e4,
        qk_norm=True,
        tied=False,
        logit_bias=True,
        shift_keys=True,
        conv_attention=3,
        conv_mlp=2,
        shared_qk=shared,
    )  # type: ignore[arg-type]
    native = shutil.which("g++") is not None
    return asked, accounting.pack_bytes(shaped, 256, 4, batch, keys.get("optimizer", "adamw"), native=native)


@pytest.mark.parametrize(
    "shape",
    [
        ["model.width=64", "batch_tokens=8192"],
        pytest.param(
            ["model.width=64", "batch_tokens=4096", "model.context=256", "model.mlp=swiglu"], marks=pytest.mark.slow
        ),
        pytest.param(["model.width=256", "batch_tokens=1024"], marks=pytest.mark.slow),
        pytest.param(["model.width=64", "batch_tokens=4096", "model.shared_qk=true"], marks=pytest.mark.slow),
        pytest.param(["model.width=256", "batch_tokens=256", "optimizer=muon"], marks=pytest.mark.slow),
        pytest.param(["model.width=256", "batch_tokens=256", "optimizer=sgd_sai"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_the_memory_model_is_an_upper_bound_of_what_is_used_and_follows_what_is_alive(here, shape):
    """What a process uses differs by a third from run to run, as its heap falls into pieces; what is alive does not."""
    asked, estimate = four(*shape)
    assert peak(3, asked, here) <= estimate
    alive = peak(3, asked, here, MALLOC_MMAP_THRESHOLD_="131072")  # every block by itself: given back when it is freed
    assert 1.7 <= estimate / alive <= 2.25


def test_a_long_run_needs_no_more_memory_than_the_model_says(here):
    """Its curve grows while activations come and go: in the heap among them, it doubled what a process uses."""
    asked, estimate = four("model.width=32", "batch_tokens=2048")
    assert peak(60, asked, here) <= estimate
