"""Small texts and data configs for the tests of the corpus."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from samples import DOCS, LINES

from proxytrain.config.schema import CodeData, FilesData, HubData, ProseData, TokensData
from proxytrain.corpus import Manifest, prepare

TEXT = {
    "unit": "document",
    "tokenizer": "bytes",
    "vocab_size": 300,
    "val_fraction": 0.2,
    "val_tokens": 1000,
    "max_bytes": None,
    "shuffle_seed": 0,
    "allow_repeat": True,
}


def some_text(number: int, lines: int = 8) -> str:
    """Lines of words that say which document and line they are."""
    rng = random.Random(number)
    words = ["loss", "lr", "tokens", "width", "depth", "schedule", "données", "für", "模型"]
    return "".join(f"{number}.{i} {' '.join(rng.choices(words, k=rng.randint(1, 9)))}\n" for i in range(lines))


@pytest.fixture
def text() -> Callable[..., str]:
    return some_text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty text files and an empty one."""
    texts = tmp_path / "texts" / "deep"
    texts.mkdir(parents=True)
    for number in range(40):
        (texts / f"{number:02d}.txt").write_text(some_text(number), encoding="utf-8")
    (texts / "empty.txt").touch()
    return tmp_path / "texts"


@pytest.fixture
def files_data(folder: Path) -> Callable[..., FilesData]:
    """A FilesData of that folder, with some keys changed."""
    return lambda **keys: FilesData(**TEXT | {"files": [f"{folder}/**/*.txt"], "text_key": "text"} | keys)


@pytest.fixture
def code_data() -> Callable[..., CodeData]:
    return lambda **keys: CodeData(**TEXT | {"unit": "line", "packages": ["omegaconf"], "reference_hash": None} | keys)


@pytest.fixture
def prose_data() -> Callable[..., ProseData]:
    return lambda **keys: ProseData(**TEXT | {"packages": ["omegaconf"], "reference_hash": None} | keys)


@pytest.fixture
def hub_data() -> Callable[..., HubData]:
    keys = {"config": None, "split": "train", "column": "text", "max_bytes": 1_000_000}
    return lambda path, **changes: HubData(**TEXT | keys | {"path": str(path)} | changes)


@pytest.fixture
def tokens_data() -> Callable[..., TokensData]:
    keys = {"val": [], "dtype": "uint16", "vocab_size": 1000, "bytes_per_token": 2.5}
    keys |= {"val_fraction": 0.1, "val_tokens": 50, "allow_repeat": True}
    return lambda train, **changes: TokensData(**keys | {"train": [str(path) for path in train]} | changes)


@pytest.fixture
def preparing() -> Callable[..., subprocess.Popen]:
    """Starts `prepare` in a process of its own; it prints the content hash and its peak memory in MB."""

    def start(data: object, root: Path, **environment: str) -> subprocess.Popen:
        script = (
            "import sys\nfrom proxytrain.config.schema import *\nfrom proxytrain.corpus import prepare\n"
            f"corpus = prepare({data!r}, {str(root)!r}, notice=lambda line: print(line, file=sys.stderr))\n"
            "peak = [line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1]\n"
            "print(corpus.manifest.content_hash, int(peak) // 1024)"
        )
        return subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    return start


@pytest.fixture
def read_back() -> Callable[[np.ndarray], str]:
    """Byte tokens as text."""
    return lambda tokens: np.asarray(tokens).astype(np.uint8).tobytes().decode("utf-8")


@pytest.fixture
def reading(tmp_path: Path, files_data: Callable[..., FilesData]) -> Callable[..., tuple[Manifest, list[str]]]:
    """Prepares files by name and content; gives the manifest and the notices."""
    roots = iter(range(100))

    def read(contents: dict[str, bytes], /, **keys: object) -> tuple[Manifest, list[str]]:
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        notices: list[str] = []
        data = files_data(**{"files": [str(tmp_path / name) for name in contents], "val_fraction": 0.05} | keys)
        return prepare(data, tmp_path / f"root{next(roots)}", notice=notices.append).manifest, notices

    return read


@pytest.fixture
def clean(reading: Callable[..., tuple[Manifest, list[str]]]) -> Manifest:
    """The manifest of the documents of `samples` as plain JSON lines."""
    manifest, notices = reading({"clean.jsonl": LINES})
    assert not notices
    assert manifest.train_documents + manifest.val_documents == len(DOCS)
    return manifest
