"""The work of preparing: text is read, split, shuffled and encoded; ready tokens are checked and counted in place.

A document is held out for validation by a hash of its text, so copies of it are all on one side. The units of each
split (documents, or lines) are then shuffled over the whole of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from proxytrain.config import CodeData, FilesData, HubData, ProseData, TextData, TokensData
from proxytrain.corpus import code, files, hub, prose
from proxytrain.corpus.corpus import Manifest, digest, versions
from proxytrain.corpus.shuffle import Shuffle
from proxytrain.corpus.tokenizer import make_tokenizer
from proxytrain.corpus.tokens import TokenFile, Writer, look_all
from proxytrain.errors import RequestError

CHUNK = 4 << 20  # ready tokens that are checked at a time

Progress = Callable[[int, "int | None", str], None]
Notice = Callable[[str], None]


def build_text(data: TextData, built: Path, progress: Progress, notice: Notice) -> Manifest:
    """Fill the folder `built` with tokens from text; its parent is used for the shuffle."""
    end = 0 if data.unit == "document" else ord("\n")
    train = Shuffle(built.parent / "train", data.shuffle_seed, end)
    val = Shuffle(built.parent / "val", data.shuffle_seed, end)
    train_documents, val_documents, text_hash = _split(data, train, val, progress, notice)
    if data.tokenizer == "bpe":
        progress(0, None, "training the tokenizer")
    tokenizer = make_tokenizer(data.tokenizer, data.vocab_size, train.blocks(), needs_end=end == 0)
    if data.tokenizer == "bpe" and tokenizer.vocab_size < data.vocab_size:
        notice(f"data.vocab_size={data.vocab_size}: the text has merges for {tokenizer.vocab_size} only, which is used")
    if tokenizer.json:
        (built / "tokenizer.json").write_text(tokenizer.json, encoding="utf-8")
    dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"

    with open(built / "val.bin", "wb") as file:
        held_out, text_bytes = Writer(file, dtype, tokenizer.vocab_size), 0.0
        for text, lengths in val.blocks():
            ids, counts = tokenizer.encode(text, lengths)
            ids = ids[: data.val_tokens - held_out.tokens]
            lengths, words = lengths - (end == 0), counts - (end == 0)  # of each unit, without its end-of-text
            kept = np.clip(len(ids) - (np.cumsum(counts) - counts), 0, words)
            text_bytes += float((lengths * kept / np.maximum(words, 1)).sum())
            held_out.write(ids)
            if held_out.tokens == data.val_tokens:
                break
    with open(built / "train.bin", "wb") as file:
        training, done = Writer(file, dtype, tokenizer.vocab_size), 0
        for text, lengths in train.blocks():
            training.write(tokenizer.encode(text, lengths)[0])
            done += len(text)
            progress(done, train.bytes, "writing tokens")
    np.save(built / "unigram.npy", training.unigram)
    _refuse_small(training.tokens, held_out.tokens)

    libraries = [*(["tokenizers"] if tokenizer.json else []), *(["datasets"] if isinstance(data, HubData) else [])]
    packages = data.packages if isinstance(data, CodeData) else []
    return Manifest(
        content_hash=digest([training.sha256, held_out.sha256, digest(tokenizer.json)]),
        text_hash=text_hash,
        source=asdict(data),
        vocab_size=tokenizer.vocab_size,
        dtype=dtype,
        train_tokens=training.tokens,
        val_tokens=held_out.tokens,
        train_documents=train_documents,
        val_documents=val_documents,
        bytes_per_token=text_bytes / held_out.tokens,
        tokenizer=data.tokenizer,
        unit=data.unit,
        versions=versions("numpy", *libraries, *packages),
        files=[],
    )


def build_ready(data: TokensData, built: Path, progress: Progress) -> Manifest:
    """Check and count ready tokens. They stay where they are; only the few of the validation split are copied."""
    train, val = look_all(data.train, data.dtype, "data.train"), look_all(data.val, data.dtype, "data.val")
    if not val:
        train, val = _hold_out(train, min(int(sum(f.tokens for f in train) * data.val_fraction), data.val_tokens))
    total = sum(file.tokens for file in train) * np.dtype(data.dtype).itemsize
    training, done = Writer(None, data.dtype, data.vocab_size), 0
    for part in _checked(train, data.vocab_size):
        training.write(part)
        done += part.nbytes
        progress(done, total, "checking tokens")
    with open(built / "val.bin", "wb") as file:
        held_out = Writer(file, data.dtype, data.vocab_size)
        for part in _checked(val, data.vocab_size):
            held_out.write(part[: data.val_tokens - held_out.tokens])
            if held_out.tokens == data.val_tokens:
                break
    np.save(built / "unigram.npy", training.unigram)
    _refuse_small(training.tokens, held_out.tokens)
    return Manifest(
        content_hash=digest([training.sha256, held_out.sha256, data.vocab_size, data.bytes_per_token]),
        text_hash=None,
        source=asdict(data),
        vocab_size=data.vocab_size,
        dtype=data.dtype,
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


def _documents(data: TextData) -> tuple[int | None, Iterator[tuple[str, bytes]]]:
    """Bytes in all, if known, and (where it comes from, text) of every document."""
    if isinstance(data, CodeData):
        sources = code.find_sources(data.packages)
        if isinstance(data, ProseData):
            return None, prose.read_prose(sources)
        return sum(path.stat().st_size for _, path in sources), code.read_sources(sources)
    if isinstance(data, FilesData):
        paths = files.find_files(data.files)
        return files.total_bytes(paths), files.read_files(paths, data.text_key)
    assert isinstance(data, HubData)
    return data.max_bytes, hub.read_hub(data)


def _split(data: TextData, train: Shuffle, val: Shuffle, progress: Progress, notice: Notice) -> tuple[int, int, str]:
    """Read all text into the two shuffles; the number of documents in each, and a hash of all text."""
    total, documents = _documents(data)
    limit = data.max_bytes or 1 << 62
    total = min(total, limit) if total else data.max_bytes
    end = b"\0" if data.unit == "document" else b"\n"
    threshold = int(data.val_fraction * 2**64)
    read, counts, skipped, text_hash = 0, [0, 0], [], hashlib.sha256()
    for where, text in documents:
        try:
            text.decode()
        except UnicodeDecodeError:
            skipped.append(where)
            continue
        text = text.replace(b"\0", b"")
        if read + len(text) > limit:
            break
        if not text:
            continue
        name = hashlib.blake2b(text, digest_size=8).digest()
        text_hash.update(name)
        held_out = int.from_bytes(name, "big") < threshold
        (val if held_out else train).add(text if text.endswith(end) else text + end)
        counts[held_out] += 1
        read += len(text)
        if sum(counts) % 256 == 0:
            progress(read, total, "reading text")
    progress(read, read, "reading text")
    if skipped:
        notice(f"{len(skipped)} documents are not UTF-8 text and were left out (the first: {skipped[0]})")
    if not any(counts):
        raise RequestError(f"data={data.name}: no text found; check the files and data.max_bytes={data.max_bytes}")
    if not all(counts):
        side, change = ("training", "lower") if counts[1] else ("validation", "raise")
        raise RequestError(
            f"data.val_fraction={data.val_fraction}: of {sum(counts)} documents none is left for {side}; {change} it "
            "(above 0, at most 0.5) or add documents (a text file of more than 256 KiB counts as many)"
        )
    return counts[0], counts[1], text_hash.hexdigest()[:16]


def _hold_out(train: list[TokenFile], tokens: int) -> tuple[list[TokenFile], list[TokenFile]]:
    """Cut the last `tokens` tokens off the training files: what is left, and what was cut off."""
    left, cut = [], []
    for file in reversed(train):
        keep = max(file.tokens - tokens, 0)
        tokens -= file.tokens - keep
        left += [file.part(0, keep)] if keep else []
        cut += [file.part(keep, file.tokens)] if keep < file.tokens else []
    return left[::-1], cut[::-1]


def _checked(parts: list[TokenFile], vocab_size: int) -> Iterator[np.ndarray]:
    """All tokens in pieces, each known to lie within the vocabulary."""
    for file in parts:
        tokens = file.open()
        for start in range(0, file.tokens, CHUNK):
            piece = np.asarray(tokens[start : start + CHUNK])
            if piece.max() >= vocab_size:
                at = int(np.argmax(piece >= vocab_size))
                where = f"{file.path}: token {piece[at]} at position {file.skip + start + at:,}"
                raise RequestError(f"{where} is beyond data.vocab_size={vocab_size}")
            yield piece


def _refuse_small(train_tokens: int, val_tokens: int) -> None:
    if val_tokens < 2:
        raise RequestError("the validation set has fewer than 2 tokens: raise data.val_fraction or add text")
    if train_tokens < val_tokens:
        raise RequestError(
            f"the corpus is smaller than its validation set ({train_tokens:,} training and {val_tokens:,} validation "
            "tokens): lower data.val_tokens or data.val_fraction, or add text"
        )
