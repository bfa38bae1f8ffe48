"""One tiny sweep, really trained, for all tests of the report; and other sweeps over the same runs."""

from collections.abc import Callable

import pytest

from proxytrain.monitor.console import Console
from proxytrain.report import write
from proxytrain.sweep.main import fit, plan, predict, train
from proxytrain.sweep.request import Request, request

BASE = """# @package _global_
defaults:
  - override /data: files
  - override /schedule: wsd
model: {width: 16, depth: 1, head_size: 8, context: 32}
data: {files: ["TEXT"], unit: line, val_fraction: 0.2, val_tokens: 4096, max_bytes: null}
tokens: 32K
warmup: 4K
batch_tokens: 512
train: {device: cpu, eval_every: 8K, eval_tokens: 1024}
fit: {law: chinchilla, bootstraps: 20}
store: STORE
"""
GRIDS = """
    - {model.width: [16, 24, 32, 48], tokens: [8K, 16K, 32K], init_seed: [0, 1]}
    - {model.width: [16, 24], schedule: cosine}
"""
TARGET = "{model: {width: 64}}"


@pytest.fixture(scope="session")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Request]:
    """A request for a sweep by its grids and target; all of them share one store."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "experiment").mkdir()
    (folder / "some.txt").write_text(
        "".join(f"loss {i % 97} of width {i % 13} after {i * i % 1009} tokens\n" for i in range(12_000))
    )
    base = BASE.replace("TEXT", str(folder / "some.txt")).replace("STORE", str(folder / "store"))

    def ask(name: str, grids: str | None = None, target: str = TARGET, *overrides: str) -> Request:
        text = f"{base}sweep:\n  name: {name}\n  target: {target}\n  grids: {grids or GRIDS}\n"
        (folder / "experiment" / f"{name}.yaml").write_text(text)
        return request([f"experiment={name}", *overrides], str(folder), Console(quiet=True))

    return ask


@pytest.fixture(scope="session")
def swept(asking: Callable[..., Request]) -> Request:
    """The sweep, trained, fitted and predicted."""
    asked = asking("tiny")
    assert train(asked, plan(asked), Console(quiet=True)) == 0
    predict(asked, fit(asked))
    return asked


@pytest.fixture(scope="session")
def page(swept: Request) -> str:
    """Its report."""
    return write(swept, swept.folder / "report.html").read_text(encoding="utf-8")
