"""Texts as documents: whole where they are small, in pieces of about 16 KiB where they are large.

A text of more than 256 KiB is cut at line ends, so that one large file can be split, shuffled and read in little memory
like many small ones. End-of-text markers that are written in a text end documents before that.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from proxytrain.corpus.ends import Documents, Ends, Readable
from proxytrain.errors import RequestError

LARGE = 256 << 10
PIECE = 16 << 10


def pieces(file: Readable) -> Iterator[bytes]:
    """Yield a text as it is, or, if it is large, in pieces that end with a line where they can."""
    pending = file.read(LARGE + 1)
    size = PIECE if len(pending) > LARGE else LARGE
    while pending:
        if len(pending) <= size:
            pending += file.read(LARGE)
        if len(pending) <= size:
            yield pending
            return
        cut = pending.rfind(b"\n", 0, size) + 1
        if not cut:
            cut = size
            while pending[cut] & 0xC0 == 0x80 and cut > size - 4:  # not inside a UTF-8 character
                cut -= 1
        yield pending[:cut]
        pending = pending[cut:]


def documents(file: Readable, ends: Ends) -> Iterator[bytes]:
    """Yield the documents of a text, each in pieces if it is large."""
    reader = Documents(file, ends)
    yield from pieces(reader)
    while reader.advance():
        yield from pieces(reader)


def text_pieces(where: str, text: object, ends: Ends) -> Iterator[tuple[str, bytes]]:
    """Yield the documents of one value that should be text; null is none.

    Raises
    ------
    RequestError : the value is no string
    """
    if text is None:
        return
    if not isinstance(text, str):
        raise RequestError(f"{where}: the text is a {type(text).__name__}, not a string")
    content = text.encode("utf-8", errors="surrogatepass")
    file = io.BytesIO(content)
    for piece in documents(file, ends) if ends.are_in(content) else pieces(file):
        yield where, piece
