"""Ready token files: their tokens in place, and several of them as one text. `layout` reads their headers.

All are little-endian, as the machines that proxytrain runs on are.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

from proxytrain.arrays import Array
from proxytrain.corpus.layout import layout_of
from proxytrain.errors import RequestError


@dataclass(frozen=True)
class TokenFile:
    """A file, or a part of one."""

    path: str
    header: int  # bytes before the tokens
    skip: int  # tokens before the part
    tokens: int  # of the part
    dtype: str
    size: int  # of the file when it was looked at, in bytes
    mtime_ns: int

    def open(self) -> Array:
        """The tokens, read-only, in place; refused when the file is no longer the one that was looked at."""
        try:
            now = os.stat(self.path)
        except OSError as error:
            raise RequestError(f"{self.path}: {error.strerror}; this corpus is used in place and needs it") from None
        if (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns):
            raise RequestError(f"{self.path} has changed since the corpus was prepared: plan or sweep again")
        offset = self.header + self.skip * np.dtype(self.dtype).itemsize
        return np.memmap(self.path, dtype=self.dtype, mode="r", offset=offset, shape=(self.tokens,))

    def part(self, start: int, stop: int) -> TokenFile:
        """Tokens `[start, stop)` of it."""
        return replace(self, skip=self.skip + start, tokens=stop - start)


def look(path: str, dtype: str) -> TokenFile:
    """Return what a token file holds, by its header or its size.

    Raises
    ------
    RequestError : empty, cut short, not whole tokens, or of another format or dtype
    """
    try:
        stat = os.stat(path)
        layout = layout_of(path, dtype)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from None
    width, room = np.dtype(layout.dtype).itemsize, stat.st_size - layout.offset
    tokens = room // width if layout.tokens is None else layout.tokens
    if tokens * width > room:
        raise RequestError(f"{path}: its header says {tokens:,} tokens, the file ends before them")
    if layout.tokens is None and room % width:
        raise RequestError(f"{path}: {room:,} bytes are no whole number of {dtype} tokens; check data.dtype")
    if tokens < 1:
        raise RequestError(f"{path}: holds no tokens")
    return TokenFile(os.path.abspath(path), layout.offset, 0, tokens, layout.dtype, stat.st_size, stat.st_mtime_ns)


def look_all(patterns: list[str], dtype: str, name: str) -> list[TokenFile]:
    """Return the token files of all globs, in order, each once; `name` is the key that lists them."""
    paths: dict[tuple[int, int], str] = {}
    for pattern in patterns:
        found = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
        if not found:
            raise RequestError(f"{name}: no file matches {pattern!r} (from {os.getcwd()})")
        for path in found:
            stat = os.stat(path)
            paths.setdefault((stat.st_dev, stat.st_ino), path)
    return [look(path, dtype) for path in paths.values()]


class Shards:
    """Several token files read as one text, each mapped in place. Has a length, a dtype, slices and windows."""

    def __init__(self, parts: Sequence[Array]):
        self.parts = parts
        self.starts = np.cumsum([0] + [len(part) for part in parts])  # (files + 1,)
        self.dtype = max((part.dtype for part in parts), key=lambda dtype: dtype.itemsize)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, where: slice) -> Array:
        start, stop, _ = where.indices(len(self))
        spans = zip(self.parts, self.starts[:-1])
        return np.concatenate([part[max(start - a, 0) : max(stop - a, 0)] for part, a in spans])

    def windows(self, starts: Array, length: int) -> Array:
        """The `length` tokens from each of `starts` on: (len(starts), length)."""
        out = np.empty((len(starts), length), dtype=self.dtype)
        first = np.searchsorted(self.starts, starts, side="right") - 1
        last = np.searchsorted(self.starts, starts + length - 1, side="right") - 1
        for i in np.unique(first):
            inside = (first == i) & (last == i)
            out[inside] = self.parts[i][(starts[inside] - self.starts[i])[:, None] + np.arange(length)]
        for row in np.flatnonzero(first != last):
            out[row] = self[int(starts[row]) : int(starts[row]) + length]
        return out


class Writer:
    """Tokens on their way to disk, or past it, with what is to be known of them.

    Attributes
    ----------
    tokens : how many there were
    unigram : how often each occurred, (V,) int64
    sha256 : of their bytes
    """

    def __init__(self, file: BinaryIO | None, dtype: str, vocab_size: int):
        self.file, self.dtype = file, np.dtype(dtype)
        self.tokens, self.unigram, self._sha256 = 0, np.zeros(vocab_size, dtype=np.int64), hashlib.sha256()

    def write(self, ids: Array) -> None:
        data = np.ascontiguousarray(ids, dtype=self.dtype).data
        if self.file:
            self.file.write(data)
        self._sha256.update(data)
        self.tokens += len(ids)
        self.unigram += np.bincount(ids, minlength=len(self.unigram))

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()
