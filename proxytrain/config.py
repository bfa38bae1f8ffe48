"""The typed schema: what may be asked, key by key. Unknown keys, wrong types and impossible values are refused by name.

Hydra composes `conf/` into a plain tree; `build` turns that tree into the frozen dataclasses below. Numbers read
`4e6`, `4M` and `4_000_000` alike. The classes say what is allowed; `conf/` says what is default and what it is for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextData:
    """Keys shared by every source of text."""

    name: str
    unit: str  # document | line: what is shuffled (once, over the whole corpus)
    tokenizer: str  # bytes | bpe | path of a tokenizer.json
    vocab_size: int  # of the BPE that is trained when tokenizer=bpe
    val_fraction: float  # share of the documents, by hash, that is held out
    val_tokens: int  # at most so many validation tokens are kept
    max_bytes: int | None  # of text read; null: all
    shuffle_seed: int
    allow_repeat: bool  # a run longer than the corpus: true = said and recorded, false = refused


@dataclass(frozen=True)
class CodeData(TextData):
    """`data=code`: Python sources of the standard library and of pinned packages; nothing is downloaded."""

    packages: list[str]
    reference_hash: str | None  # content hash on the machines that the pins describe


@dataclass(frozen=True)
class FilesData(TextData):
    """`data=files`: globs of txt, md, code, jsonl (plain, gz, zst) and parquet."""

    files: list[str]
    text_key: str


@dataclass(frozen=True)
class HubData(TextData):
    """`data=hub`: a Hugging Face dataset, streamed up to `max_bytes`."""

    path: str
    config: str | None
    split: str
    column: str


@dataclass(frozen=True)
class TokensData:
    """`data=tokens`: ready token files (`.bin`), as nanoGPT and llm.c write them."""

    name: str
    train: list[str]
    val: list[str]  # empty: the last val_fraction of the training files
    dtype: str  # uint16 | uint32
    vocab_size: int
    bytes_per_token: float | None  # of the tokenizer that made them, for bits a byte
    val_fraction: float
    val_tokens: int
    allow_repeat: bool


DATA = {"code": CodeData, "files": FilesData, "hub": HubData, "tokens": TokensData}
