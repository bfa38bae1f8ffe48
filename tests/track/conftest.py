"""A small sweep with its fit, trained once; a loopback W&B server; an environment in which wandb finds only that."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mirror_support import KEY, SWEEP
from support import train
from wandb_server import Server

from proxytrain.config.schema import Wandb
from proxytrain.monitor.console import Console
from proxytrain.store.store import Store
from proxytrain.sweep import main as sweep
from proxytrain.sweep.request import request
from proxytrain.track import mirror
from proxytrain.track.mirror import Mirror


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, corpora: Path) -> Path:
    """A store with the sweep `s`: four lengths of two trunks, a fit, a prediction and the truth."""
    root = tmp_path_factory.mktemp("trained") / "runs"
    root.mkdir()
    (root / "corpora").symlink_to(corpora)
    asked = request([*SWEEP, f"store={root}"], None, Console(quiet=True))
    train(asked, sweep.plan(asked))
    target = dataclasses.replace(asked, runs=asked.targets)
    train(target, sweep.plan(asked, runs=asked.targets, name="s.verify"))
    sweep.predict(asked, sweep.fit(asked))
    return root


@pytest.fixture
def done(trained: Path, tmp_path: Path) -> Store:
    """A copy of it."""
    shutil.copytree(trained, tmp_path / "runs", symlinks=True)
    return Store(tmp_path / "runs")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no settings and no server but a test's own; failures are tried again soon."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(mirror, "WAIT_SECONDS", (0.1, 1.0))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as found:
        monkeypatch.setenv("WANDB_BASE_URL", found.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield found


@pytest.fixture
def sync() -> Callable[..., tuple[int, list[str]]]:
    """`track sync` in this process: exit code and what it said."""

    def send(store: Store, *, online: bool = True, rate: float = 1e6) -> tuple[int, list[str]]:
        said: list[str] = []
        made = Mirror(
            store, "s", Wandb(mode=None, entity=None, project=None, requests_per_minute=rate), online, said.append
        )
        made.over.set()
        return made.run(), said

    return send
