"""The work of preparing text: it is read, split, shuffled and encoded. `ready` does it for ready tokens.

A document is held out for validation by a hash of its text, so copies of it are all on one side. The units of each
split (documents, or lines) are then shuffled over the whole of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from msgspec import to_builtins

from proxytrain.config.schema import CodeData, FilesData, HubData, ProseData, TextData
from proxytrain.corpus import code, files, hub, prose
from proxytrain.corpus.corpus import Manifest, Notice, digest, refuse_small, versions
from proxytrain.corpus.ends import Ends
from proxytrain.corpus.shuffle import Shuffle
from proxytrain.corpus.survival import ENOUGH, survival_notice, surviving_share, unknown_notice
from proxytrain.corpus.tokenizer import end_markers, make_tokenizer
from proxytrain.corpus.tokens import Writer
from proxytrain.errors import RequestError

Progress = Callable[[int, "int | None", str], None]


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

    survives = surviving_share(tokenizer, val.blocks()) if tokenizer.json else 1.0
    for line in survival_notice(data.tokenizer, survives):
        notice(line)

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
    refuse_small(training.tokens, held_out.tokens)

    unknown, unknown_share = tokenizer.unknown, None
    if unknown:
        written = train.units if end == 0 and unknown[1] == tokenizer.end else 0  # where it ends documents too
        unknown_share = max(int(training.unigram[unknown[1]]) - written, 0) / training.tokens
        for line in unknown_notice(data.tokenizer, unknown[0], unknown_share):
            notice(line)

    libraries = [*(["tokenizers"] if tokenizer.json else []), *(["datasets"] if isinstance(data, HubData) else [])]
    packages = data.packages if isinstance(data, CodeData) else []
    return Manifest(
        content_hash=digest([training.sha256, held_out.sha256, digest(tokenizer.json)]),
        text_hash=text_hash,
        source=to_builtins(data),
        vocab_size=tokenizer.vocab_size,
        dtype=dtype,
        train_tokens=training.tokens,
        val_tokens=held_out.tokens,
        train_documents=train_documents,
        val_documents=val_documents,
        bytes_per_token=survives * text_bytes / held_out.tokens if survives >= ENOUGH else None,
        tokenizer=data.tokenizer,
        unit=data.unit,
        versions=versions("numpy", *libraries, *packages),
        files=[],
        unknown_share=unknown_share,
        surviving_share=survives if tokenizer.json else None,
    )


def _documents(data: TextData, ends: Ends) -> tuple[int | None, Iterator[tuple[str, bytes]], list[str]]:
    """Return bytes in all, if known, (where it is from, text) of every document, and notices on their reading."""
    if isinstance(data, CodeData):
        sources = code.find_sources(data.packages)
        if isinstance(data, ProseData):
            return None, prose.read_prose(sources), []
        return sum(path.stat().st_size for _, path in sources), code.read_sources(sources), []
    if isinstance(data, FilesData):
        found = files.survey(files.find_files(data.files), data.text_key)
        return found.total, files.read_files(found.sources, data.text_key, ends), found.notices
    assert isinstance(data, HubData)
    return data.max_bytes, hub.read_hub(data, ends), []


def _split(data: TextData, train: Shuffle, val: Shuffle, progress: Progress, notice: Notice) -> tuple[int, int, str]:
    """Read all text into the two shuffles; the number of documents in each, and a hash of all text."""
    ends = Ends(end_markers(data.tokenizer))
    total, documents, notices = _documents(data, ends)
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
    for line in [*notices, *ends.notices()]:
        notice(line)
    if skipped:
        if not any(counts):
            raise RequestError(f"data={data.name}: no document is UTF-8 text (the first: {skipped[0]}). Convert them.")
        of = f"{len(skipped):,} of {len(skipped) + sum(counts):,} documents"
        notice(f"{of} are not UTF-8 text and were left out (the first: {skipped[0]})")
    if not any(counts):
        raise RequestError(f"data={data.name}: no text found; check the files and data.max_bytes={data.max_bytes}")
    if not all(counts):
        side, change = ("training", "lower") if counts[1] else ("validation", "raise")
        raise RequestError(
            f"data.val_fraction={data.val_fraction}: of {sum(counts)} documents none is left for {side}; {change} it "
            "(above 0, at most 0.5) or add documents (a text file of more than 256 KiB counts as many)"
        )
    return counts[0], counts[1], text_hash.hexdigest()[:16]
