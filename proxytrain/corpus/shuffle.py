"""A shuffle of any number of documents or lines in little memory: a sort, on disk, by a keyed hash of their number.

A unit of text ends in the terminator (a newline, or the NUL that stands for end of text) and has none inside. Its key
is a hash of its number, so the order does not depend on how many buckets there are or how large a block is.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from proxytrain.arrays import Array
from proxytrain.corpus.keyed import key, mix

CHUNK = 4 << 20  # bytes of text that are sorted at a time on the way in, and handed over at a time on the way out
BUCKET = 16 << 20  # bytes of a bucket file that are sorted in memory; a larger one is spread over buckets of its own
BITS = 6  # 64 buckets a level


class Shuffle:
    """Units of text, put in with `add` in any amount and read back in shuffled order with `blocks`.

    Parameters
    ----------
    folder : where the buckets are kept; made here, and left for the caller to remove
    seed : names the order
    terminator : the byte that ends a unit
    """

    def __init__(self, folder: Path, seed: int, terminator: int):
        self.folder, self.terminator = folder, terminator
        self._key = key(seed, terminator)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.units = 0
        self.bytes = 0
        folder.mkdir()

    def add(self, text: bytes) -> None:
        """Add one or more whole units."""
        self._pending.append(text)
        self._pending_bytes += len(text)
        if self._pending_bytes >= CHUNK:
            self._flush()

    def blocks(self) -> Iterator[tuple[Array, Array]]:
        """All units in shuffled order, from the first one at every call, in blocks of about CHUNK bytes.

        Yields
        ------
        text : (bytes,) uint8
        lengths : (units,) int64, bytes of each unit with its terminator
        """
        self._flush()
        yield from _sorted_blocks(self.folder, level=0)

    def _flush(self) -> None:
        if not self._pending:
            return
        text = np.frombuffer(b"".join(self._pending), dtype=np.uint8)
        ends = np.flatnonzero(text == self.terminator) + 1
        keys = mix(np.arange(self.units, self.units + len(ends), dtype=np.uint64) + self._key)
        _scatter(self.folder, 0, keys, np.diff(ends, prepend=0), text)
        self.units += len(ends)
        self.bytes += len(text)
        self._pending, self._pending_bytes = [], 0


def _gather(text: Array, starts: Array, lengths: Array) -> Array:
    """The units of `text` at `starts`, one after the other."""
    ends = np.cumsum(lengths)
    return text[np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1])]


def _scatter(folder: Path, level: int, keys: Array, lengths: Array, text: Array) -> None:
    """Append each unit to the bucket of its key: blocks of (units, bytes), keys, lengths, text."""
    order = np.argsort(keys)
    starts = (np.cumsum(lengths) - lengths)[order]
    keys, lengths = keys[order], lengths[order]
    text = _gather(text, starts, lengths)
    buckets = (keys >> np.uint64(64 - BITS * (level + 1))) & np.uint64((1 << BITS) - 1)
    units = np.searchsorted(buckets, np.arange((1 << BITS) + 1, dtype=np.uint64))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    for bucket, (a, b) in enumerate(itertools.pairwise(units)):
        if a < b:
            with open(folder / f"{bucket:02d}", "ab") as file:
                file.write(np.array([b - a, offsets[b] - offsets[a]], dtype=np.int64).tobytes())
                file.write(keys[a:b].tobytes())
                file.write(lengths[a:b].astype(np.uint32).tobytes())
                file.write(text[offsets[a] : offsets[b]].data)


def _read(path: Path) -> Iterator[tuple[Array, Array, Array]]:
    with open(path, "rb") as file:
        while header := file.read(16):
            units, size = np.frombuffer(header, dtype=np.int64).tolist()
            keys = np.frombuffer(file.read(8 * units), dtype=np.uint64)
            lengths = np.frombuffer(file.read(4 * units), dtype=np.uint32).astype(np.int64)
            yield keys, lengths, np.frombuffer(file.read(size), dtype=np.uint8)


def _sorted_blocks(folder: Path, level: int) -> Iterator[tuple[Array, Array]]:
    for path in sorted(path for path in folder.iterdir() if not path.suffix):
        if path.stat().st_size > BUCKET and BITS * (level + 2) <= 64:
            inner = path.with_suffix(".inner")
            shutil.rmtree(inner, ignore_errors=True)
            inner.mkdir()
            for keys, lengths, text in _read(path):
                _scatter(inner, level + 1, keys, lengths, text)
            yield from _sorted_blocks(inner, level + 1)
            shutil.rmtree(inner)
            continue
        keys, lengths, text = (np.concatenate(parts) for parts in zip(*_read(path)))
        order = np.argsort(keys)
        starts = (np.cumsum(lengths) - lengths)[order]
        lengths = lengths[order]
        cuts = np.flatnonzero(np.diff(np.cumsum(lengths) // CHUNK, prepend=0))
        for some_starts, some_lengths in zip(np.split(starts, cuts), np.split(lengths, cuts)):
            if len(some_lengths):
                yield _gather(text, some_starts, some_lengths), some_lengths
