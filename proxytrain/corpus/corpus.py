"""A prepared corpus: a folder named by its content, with its tokens mapped into memory and a manifest beside them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.config.section import build
from proxytrain.corpus.tokens import Shards, TokenFile
from proxytrain.errors import RequestError

Notice = Callable[[str], None]


@dataclass(frozen=True)
class Manifest:
    """What a corpus is, and where it came from."""

    content_hash: str  # of the tokens of both splits and the tokenizer
    text_hash: str | None  # of all documents in the order in which they were read; None: ready tokens
    source: dict[str, Any]  # the data config that was asked for
    vocab_size: int
    dtype: str  # of the token files: uint16 | uint32
    train_tokens: int
    val_tokens: int
    train_documents: int  # on each side of the split, before val_tokens cut the validation text
    val_documents: int
    bytes_per_token: float | None  # of the validation split, those that survive the tokenizer; None: not known
    tokenizer: str  # bytes | bpe | the path of a tokenizer.json | ready
    unit: str  # document | line | ready
    versions: dict[str, str]
    files: list[dict[str, Any]]  # of ready tokens, the training files that are used in place
    notices: list[str] | None = None  # what a user should know of how the text was read
    unknown_share: float | None = None  # of the training tokens; None: a tokenizer without an unknown token
    surviving_share: float | None = None  # of a sample's bytes after encoding and decoding; None: bytes, ready tokens


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus, opened.

    Attributes
    ----------
    folder : its folder, named by the content hash
    manifest : what it is
    """

    folder: Path
    manifest: Manifest

    @cached_property
    def train(self) -> Array | Shards:
        """Training tokens, read-only, (N,) uint16 or uint32: a memory map, or Shards for several ready files."""
        if self.manifest.files:
            parts = [TokenFile(**file).open() for file in self.manifest.files]
            return parts[0] if len(parts) == 1 else Shards(parts)
        return self._map("train.bin", self.manifest.train_tokens)

    @cached_property
    def val(self) -> Array:
        """Validation tokens, a read-only memory map, (N,) uint16 or uint32."""
        return self._map("val.bin", self.manifest.val_tokens)

    @cached_property
    def unigram(self) -> Array:
        """How often each token occurs in the training split, (V,) int64."""
        path = self.folder / "unigram.npy"
        try:
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.int64)
        except Exception:  # whatever is wrong with it
            raise self._broken(path) from None

    def _map(self, name: str, tokens: int) -> Array:
        path = self.folder / name
        if not path.is_file() or path.stat().st_size != tokens * np.dtype(self.manifest.dtype).itemsize:
            raise self._broken(path)
        return np.memmap(path, dtype=self.manifest.dtype, mode="r", shape=(tokens,))

    def _broken(self, path: Path) -> RequestError:
        return RequestError(f"{path} is not as it was written: delete the folder {self.folder} and prepare again")


def load(root: Path | str, content_hash: str) -> Corpus:
    """Open a corpus that was prepared before.

    Raises
    ------
    RequestError : there is none with that hash under `root`
    """
    folder = Path(root) / content_hash
    try:
        manifest = build(Manifest, json.loads((folder / "manifest.json").read_text()))
        if manifest.dtype not in ("uint16", "uint32"):
            raise ValueError(manifest.dtype)
    except FileNotFoundError:
        raise RequestError(f"corpus {content_hash} is not under {root}: plan or sweep prepares it") from None
    except ValueError:
        raise RequestError(f"{folder}/manifest.json is broken: delete the folder, and it is prepared again") from None
    return Corpus(folder, manifest)


def digest(value: object) -> str:
    """A short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def versions(*packages: str) -> dict[str, str]:
    """Versions of the interpreter and of packages."""
    return {"python": platform.python_version()} | {
        package: importlib.metadata.version(package) for package in packages
    }


def manifest_json(manifest: Manifest) -> str:
    """The text of manifest.json."""
    return json.dumps(asdict(manifest), indent=2) + "\n"


def refuse_small(train_tokens: int, val_tokens: int) -> None:
    """Refuse a split that nothing could be trained on or validated with."""
    if val_tokens < 2:
        raise RequestError("the validation set has fewer than 2 tokens: raise data.val_fraction or add text")
    if train_tokens < val_tokens:
        raise RequestError(
            f"the corpus is smaller than its validation set ({train_tokens:,} training and {val_tokens:,} validation "
            "tokens): lower data.val_tokens or data.val_fraction, or add text"
        )
