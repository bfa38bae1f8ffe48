"""Fixtures: reference mode, one prepared corpus, an empty store, a request on it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support import TINY, TINY_TEXT, kill_left

from proxytrain.monitor.console import Console
from proxytrain.sweep.request import Request, request

# started in the background, or by nohup, the tests ignore these; what they start is to hear them
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def reference_mode() -> None:
    """One thread, denormals flushed: where results are promised to the bit."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


@pytest.fixture(autouse=True)
def nothing_is_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test has started in its own folder ends with it, however it ends."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder:
        kill_left(folder)


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One prepared corpus for all tests that do not care about it."""
    root = tmp_path_factory.mktemp("corpora")
    asked = request([*TINY_TEXT, *TINY, f"store={root}"], None, Console(quiet=True))
    return asked.store.corpora()


@pytest.fixture
def store(tmp_path: Path, corpora: Path) -> Path:
    """An empty store that shares the prepared corpus."""
    root = tmp_path / "runs"
    root.mkdir()
    (root / "corpora").symlink_to(corpora)
    return root


@pytest.fixture
def ask(store: Path) -> Callable[..., Request]:
    """A request on the tiny corpus, with more overrides."""

    def make(*overrides: str, store: Path = store, text: list[str] = TINY_TEXT) -> Request:
        return request([*text, *TINY, f"store={store}", *overrides], None, Console(quiet=True))

    return make
