"""The work of preparing ready tokens: they are checked and counted in place, and the validation split is copied."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from msgspec import to_builtins

from proxytrain.arrays import Array
from proxytrain.config.schema import TokensData
from proxytrain.corpus.corpus import Manifest, Notice, digest, refuse_small, versions
from proxytrain.corpus.dtypes import check_dtype, hint_of
from proxytrain.corpus.tokens import TokenFile, Writer, look_all
from proxytrain.errors import RequestError

CHUNK = 4 << 20  # ready tokens that are checked at a time
FEW = 0.5  # share of the vocabulary below which the highest id is reported

Progress = Callable[[int, "int | None", str], None]


def build_ready(data: TokensData, built: Path, progress: Progress, notice: Notice) -> Manifest:
    """Check and count ready tokens. They stay where they are; only the few of the validation split are copied."""
    train, val = look_all(data.train, data.dtype, "data.train"), look_all(data.val, data.dtype, "data.val")
    for file in [*train, *val]:
        if not file.header:
            check_dtype(file.path, file.open())
    _check_copies(train, val, notice)
    dtype = max((file.dtype for file in [*train, *val]), key=lambda name: np.dtype(name).itemsize)
    _report_dtype(data, dtype, notice)
    if not val:
        train, val = _hold_out(train, min(int(sum(f.tokens for f in train) * data.val_fraction), data.val_tokens))
    total = sum(file.tokens for file in train) * np.dtype(dtype).itemsize
    training, done = Writer(None, dtype, data.vocab_size), 0
    for part in _checked(train, data.vocab_size):
        training.write(part)
        done += part.nbytes
        progress(done, total, "checking tokens")
    with open(built / "val.bin", "wb") as copy:
        held_out = Writer(copy, dtype, data.vocab_size)
        for part in _checked(val, data.vocab_size):
            held_out.write(part[: data.val_tokens - held_out.tokens])
            if held_out.tokens == data.val_tokens:
                break
    np.save(built / "unigram.npy", training.unigram)
    refuse_small(training.tokens, held_out.tokens)
    highest = int(np.flatnonzero(training.unigram).max())
    if highest + 1 < FEW * data.vocab_size:
        notice(
            f"data.vocab_size={data.vocab_size}: the highest token id is {highest:,} of a vocabulary of "
            f"{data.vocab_size:,}. Check the tokenizer that made the files."
        )
    return Manifest(
        content_hash=digest([training.sha256, held_out.sha256, data.vocab_size, data.bytes_per_token]),
        text_hash=None,
        source=to_builtins(data),
        vocab_size=data.vocab_size,
        dtype=dtype,
        train_tokens=training.tokens,
        val_tokens=held_out.tokens,
        train_documents=0,
        val_documents=0,
        bytes_per_token=data.bytes_per_token,
        tokenizer="ready",
        unit="ready",
        versions=versions("numpy"),
        files=[asdict(file) for file in train],
    )


def _check_copies(train: list[TokenFile], val: list[TokenFile], notice: Notice) -> None:
    """Refuse validation tokens that are trained on, and report files that are there twice."""
    for file in val:
        twin = next((other for other in train if _same(file, other)), None)
        if twin:
            raise RequestError(
                f"data.val={file.path}: has the tokens of {twin.path}, which is trained on. Name other tokens."
            )
    twins = [(a, b) for i, a in enumerate(train) for b in train[:i] if _same(a, b)]
    if twins:
        a, b = twins[0]
        notice(f"data.train: {a.path} has the tokens of {b.path}; they count twice")


def _same(a: TokenFile, b: TokenFile) -> bool:
    return a.size == b.size and filecmp.cmp(a.path, b.path, shallow=False)


def _report_dtype(data: TokensData, dtype: str, notice: Notice) -> None:
    if dtype != data.dtype:
        notice(f"data.dtype={data.dtype}: the files say {dtype}, which is used")
    if data.vocab_size > 1 << 16 and dtype == "uint16":
        notice(
            f"data.vocab_size={data.vocab_size}: uint16 has no ids from 65,536 on. "
            "Check that none was cut when the files were written."
        )


def _hold_out(train: list[TokenFile], tokens: int) -> tuple[list[TokenFile], list[TokenFile]]:
    """Cut the last `tokens` tokens off the training files: what is left, and what was cut off."""
    left, cut = [], []
    for file in reversed(train):
        keep = max(file.tokens - tokens, 0)
        tokens -= file.tokens - keep
        left += [file.part(0, keep)] if keep else []
        cut += [file.part(keep, file.tokens)] if keep < file.tokens else []
    return left[::-1], cut[::-1]


def _checked(parts: list[TokenFile], vocab_size: int) -> Iterator[Array]:
    """Yield all tokens in pieces, each known to lie within the vocabulary."""
    for file in parts:
        tokens = file.open()
        for start in range(0, file.tokens, CHUNK):
            piece = np.asarray(tokens[start : start + CHUNK])
            if piece.max() >= vocab_size:
                at = int(np.argmax(piece >= vocab_size))
                where = f"{file.path}: token {piece[at]} at position {file.skip + start + at:,}"
                hint = hint_of(piece, vocab_size)
                raise RequestError(f"{where} is beyond data.vocab_size={vocab_size}{hint}")
            yield piece
