"""What tests of training share: a tiny recipe on real text, training in this process, the command as users run it."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from proxytrain.corpus import load
from proxytrain.plan import freeze
from proxytrain.plan.claims import attempts
from proxytrain.plan.freeze import Plan
from proxytrain.plan.parts import unfinished
from proxytrain.store.store import Store
from proxytrain.sweep.request import Request
from proxytrain.train.loop import train_pack

LIBC = ctypes.CDLL(None)
STDLIB = Path(sysconfig.get_path("stdlib"))
TINY_TEXT = [
    f"data.files=[{STDLIB}/json/*.py,{STDLIB}/email/*.py,{STDLIB}/http/*.py]",
    "data=files",
    "data.unit=line",
    "data.tokenizer=bytes",
    "data.val_fraction=0.1",
    "data.val_tokens=8192",
]
TINY = [
    "model.width=16",
    "model.head_size=8",
    "model.context=32",
    "parametrization.base_width=16",
    "batch_tokens=256",
    "warmup=1024",
    "tokens=8192",
    "train.device=cpu",
    "train.eval_every=4096",
    "train.eval_tokens=1024",
    "fit.bootstraps=40",
]
# far more than any machine trains in a test's life: such a run cannot end before it is interrupted
ENDLESS = ["tokens=4G", "sweep.grids=[{init_seed:[0,1]}]", "sweep.budget_hours=1e6", "launch.workers=1"]


def planned(asked: Request, *, largest: int = 4) -> Plan:
    """The request's plan for one worker of this machine, with packs of at most `largest` members."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(freeze.LARGEST_PACK, "cpu", largest)
        return freeze.make(
            asked.name,
            asked.runs,
            None,
            store=asked.store,
            train=asked.config.train,
            workers=1,
            device="cpu",
            memory=1 << 40,
        )


def after(updates: int) -> Callable[[], bool]:
    """Asks to stop once so many updates are made, and from then on."""
    left = itertools.count(updates, -1)
    return lambda: next(left) <= 1


def train(
    asked: Request,
    made: Plan | None = None,
    *,
    largest: int = 4,
    micro_batches: int = 1,
    compiled: bool = False,
    device: torch.device = torch.device("cpu"),  # noqa: B008
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train a request's runs in this process; what is there already is left out, checkpoints are gone on from."""
    made = made or planned(asked, largest=largest)
    while parts := unfinished(made, asked.store):
        part = parts[0]
        packs = asked.folder / "packs"
        attempt = packs / part.pack.id / f"attempt-{attempts(packs / part.pack.id) + 1:03d}"
        attempt.mkdir(parents=True)
        train_pack(
            part.pack,
            wanted=part.wanted,
            store=asked.store,
            corpus=load(asked.store.corpora(), asked.corpus.manifest.content_hash),
            runs={r.id: r for r in asked.records},
            train=asked.config.train,
            micro_batches=micro_batches,
            compiled=compiled,
            device=device,
            folders=[packs / name for name in part.names],
            attempt=attempt,
            should_stop=should_stop,
            report=lambda rows: None,
        )


def outcome(store: Store, run_id: str) -> dict[str, np.ndarray]:
    """All that training decides about a run: its curve, what was seen, its final loss, its state where that is kept."""
    result = store.result(run_id)
    assert result is not None
    state = store.segment(result.key) / "state.npy"
    curve = store.curve(run_id)
    return {
        **{name: getattr(curve, name) for name in ("tokens", "lr", "loss", "grad_norm", "eval_tokens", "eval_loss")},
        **{f"telemetry.{name}": values for name, values in curve.telemetry.items()},
        "final_loss": np.array([result.final_loss, result.val_se], dtype=float),
        "state": np.load(state) if state.exists() else np.empty(0),
    }


def assert_same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    for name in a:
        assert np.array_equal(a[name], b[name]), f"{name} differs"


def proxytrain(*arguments: str, cwd: Path, check: int | None = 0, **kwargs) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    kwargs["preexec_fn"] = ending_with_us(kwargs.get("preexec_fn", lambda: None))
    done = subprocess.run(
        [sys.executable, "-m", "proxytrain", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "200"},
        **kwargs,
    )
    if check is not None:
        assert done.returncode == check, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def start(*arguments: str, cwd: Path, **kwargs) -> subprocess.Popen[str]:
    """The command in the background; what is left of it ends with the test if `cwd` is the test's folder."""
    command = [sys.executable, "-m", "proxytrain", *arguments]
    return subprocess.Popen(command, cwd=cwd, text=True, preexec_fn=ending_with_us(), **kwargs)


def ending_with_us(then: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """What a child does first: have the kernel kill it when this process ends, in whichever way; then `then`."""
    parent = os.getpid()

    def first() -> None:
        LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it has ended before the line above
            os._exit(1)
        then()

    return first


def kill_left(folder: Path) -> None:
    """SIGKILL to the processes that are at work in a folder or below: what a test started there and did not end."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if Path(os.readlink(entry / "cwd")).is_relative_to(folder.resolve()):
                    os.kill(int(entry.name), signal.SIGKILL)
