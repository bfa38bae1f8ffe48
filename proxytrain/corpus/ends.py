"""Markers between documents that are written out in a text: `<|endoftext|>`, its kin, and the tokenizer's own.

A marker between equal quotes or backticks is a mention, as in source code, and stays text. Markers that are HTML tags
too (`</s>`) count at the end of a line only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol

END_OF_TEXT = "<|endoftext|>"
ALWAYS = (END_OF_TEXT, "<|end_of_text|>", "<|startoftext|>", "<|begin_of_text|>")
CHUNK = 256 << 10
MARGIN = 256  # bytes, longer than any marker with what stands around it


LINE_BREAK = re.compile(rb"\r?\n\Z")
REST_OF_LINE = re.compile(rb"[ \t]{0,9}\r?\n")
LINE_END = re.compile(rb"[ \t]{0,9}(\r?\n|\Z|<s>)")
QUOTES = (b'"', b"'", b"`")


class Border(NamedTuple):
    """A marker with the line breaks around it: where it begins and ends in a buffer."""

    start: int
    end: int
    marker: bytes


class Readable(Protocol):
    """Whatever bytes are read from."""

    def read(self, size: int, /) -> bytes: ...


class Ends:
    """The markers that separate documents, and how many were found.

    Attributes
    ----------
    found : borders of documents by marker
    mentions : markers that stay text
    """

    def __init__(self, markers: Iterable[str] = ()):
        self.markers = [marker.encode() for marker in dict.fromkeys((*ALWAYS, *markers))]
        self.found: dict[str, int] = {}
        self.mentions = 0

    def notices(self) -> list[str]:
        """Return what to say of the markers that were found."""
        out = [f"{name} in the text separates documents, {n:,} times" for name, n in self.found.items()]
        if self.mentions:
            out.append(f"markers of documents in quotes or inside a line stay text, {self.mentions:,} times")
        return out

    def are_in(self, text: bytes) -> bool:
        """Return whether any marker is written in a text."""
        return any(marker in text for marker in self.markers)

    def search(self, text: bytes, start: int, known: dict[bytes, int]) -> Border | None:
        """Return the first marker from `start` on that is no mention, with one line break on each side.

        `known` has where each marker is next, for searches of one text from rising starts; it is filled in here.
        """
        while True:
            for marker in self.markers:
                if known.get(marker, -1) < start:
                    at = text.find(marker, start)
                    known[marker] = at if at >= 0 else len(text)
            marker = min(self.markers, key=known.__getitem__)
            at = known[marker]
            if at == len(text):
                return None
            after = at + len(marker)
            quote = text[at - 1 : at]
            mention = quote in QUOTES and quote == text[after : after + 1]
            if not mention and (not _is_tag(marker) or LINE_END.match(text, after)):
                before = LINE_BREAK.search(text, max(at - 2, start), at)
                behind = REST_OF_LINE.match(text, after)
                return Border(before.start() if before else at, behind.end() if behind else after, marker)
            start = after


class Documents:
    """A stream read as one document after the other: `read` stops at a marker, `advance` goes on behind it."""

    def __init__(self, file: Readable, ends: Ends):
        self._file, self._ends = file, ends
        self._buffer, self._at = b"", 0  # one byte before `_at` is kept, for a quote
        self._end: Border | None = None  # of this document, where `_at` stands before it
        self._known: dict[bytes, int] = {}  # where the markers are next in the buffer
        self._whole = False  # whether the buffer reaches the end of the file

    def read(self, size: int) -> bytes:
        """Return `size` bytes of this document, or what is left of it."""
        self._fill(size + MARGIN)
        if self._end is None:
            self._end = self._ends.search(self._buffer, self._at, self._known)
        stop = self._at + size if self._end is None else min(self._at + size, self._end.start)
        out = self._buffer[self._at : stop]
        self._at += len(out)
        self._ends.mentions += sum(out.count(marker) for marker in self._ends.markers)
        if self._end is not None and self._at < self._end.start:
            self._end = None  # found again: the buffer may be another by then
        return out

    def advance(self) -> bool:
        """Go to the next document; False where there is none."""
        if self._end is None:
            return False
        marker = self._end.marker.decode()
        self._ends.found[marker] = self._ends.found.get(marker, 0) + 1
        self._at, self._end = self._end.end, None
        return True

    def _fill(self, size: int) -> None:
        """Have `size` bytes before us; a marker that was found stays valid only while nothing moves."""
        if self._end is not None or len(self._buffer) - self._at >= size:
            return
        keep = max(self._at - 1, 0)
        self._buffer, self._at, self._known = self._buffer[keep:], self._at - keep, {}
        while len(self._buffer) - self._at < size and not self._whole:
            more = self._file.read(max(CHUNK, size))
            self._whole = not more
            self._buffer += more


def _is_tag(marker: bytes) -> bool:
    """Return whether a marker is an HTML tag too; it must then end its line, or stand before a begin of sequence."""
    return not marker.startswith((b"<|", b"["))
