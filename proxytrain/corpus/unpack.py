"""Files opened for reading as UTF-8 text, whatever they are packed with and however they are named.

gzip, Zstandard, xz and bzip2 are unpacked by their first bytes, also one inside another. A byte-order mark is dropped;
UTF-16 and UTF-32 that begin with one are decoded.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from proxytrain.errors import RequestError

HEAD = 64 << 10  # bytes that say what a file is
LAYERS = 3  # at most so many packings inside each other
WINDOW = 1 << 31  # bytes of the largest window of Zstandard (`zstd --long=31`)
SUFFIXES = (".gz", ".zst", ".xz", ".bz2", ".zstd", ".gzip")
MARKS = (  # the longer ones first: UTF-32's begins like UTF-16's
    (codecs.BOM_UTF8, ""),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Unpacked:
    """A file open for reading.

    Attributes
    ----------
    file : its text as UTF-8, or the bytes that it has instead
    packed : whether it was compressed
    encoding : that it was decoded from; empty for UTF-8
    """

    file: io.BufferedReader
    packed: bool
    encoding: str

    def head(self) -> bytes:
        """Return the first bytes without moving on: HEAD of them, or all that there are."""
        return self.file.peek(HEAD)[:HEAD]


@contextmanager
def unpacked(path: str) -> Iterator[Unpacked]:
    """Open a file by its content; its first bytes can be looked at before it is read.

    Raises
    ------
    RequestError : it cannot be read, is damaged, or is not in the encoding of its byte-order mark
    """
    try:
        with open(path, "rb") as raw:
            stream, packed = _buffered(raw), False
            for _ in range(LAYERS):
                opener = _opener(stream.peek(HEAD))
                if opener is None:
                    break
                stream, packed = _buffered(opener(stream)), True
            stream, encoding = _marked(stream)
            yield Unpacked(stream, packed, encoding)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise RequestError(f"{path}: cannot be read ({why})") from None


def stem(path: str) -> str:
    """Return a path in lower case without the suffixes of its packing."""
    name = path.lower()
    while name.endswith(SUFFIXES):
        name = name.rpartition(".")[0]
    return name


def _opener(head: bytes) -> Callable[[BinaryIO], BinaryIO] | None:
    if head.startswith(b"\x1f\x8b\x08"):
        return lambda file: cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return lambda file: cast(BinaryIO, _Zstandard(file))
    if head.startswith(b"\xfd7zXZ\0"):
        return lambda file: cast(BinaryIO, lzma.LZMAFile(file))
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return lambda file: cast(BinaryIO, bz2.BZ2File(file))
    return None


def _buffered(file: BinaryIO) -> io.BufferedReader:
    return io.BufferedReader(_Whole(file), HEAD)


def _marked(stream: io.BufferedReader) -> tuple[io.BufferedReader, str]:
    """Drop a byte-order mark, and decode what it announces."""
    head = stream.peek(4)[:4]
    mark, encoding = next(((mark, name) for mark, name in MARKS if head.startswith(mark)), (b"", ""))
    if not encoding:
        stream.read(len(mark))
        return stream, ""
    text = io.TextIOWrapper(stream, encoding=encoding, newline="")
    return _buffered(cast(BinaryIO, _Encoded(text))), encoding.upper()


class _Whole(io.RawIOBase):
    """A stream whose every read fills the buffer, up to the end: a look at the first bytes then shows HEAD of them."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        done = 0
        while done < len(buffer) and (got := self._file.read(len(buffer) - done)):
            buffer[done : done + len(got)] = got
            done += len(got)
        return done


class _Encoded:
    """A text stream read as UTF-8 bytes."""

    def __init__(self, text: io.TextIOWrapper):
        self._text, self._left = text, b""

    def read(self, size: int) -> bytes:
        while len(self._left) < size and (more := self._text.read(size)):
            self._left += more.encode()
        out, self._left = self._left[:size], self._left[size:]
        return out


class _Zstandard:
    """A Zstandard stream of any number of frames; damage is an OSError, as in the other formats."""

    def __init__(self, file: BinaryIO):
        import zstandard

        self._error = zstandard.ZstdError
        unpacker = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        self._stream = unpacker.stream_reader(file, read_across_frames=True)

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except self._error as error:
            raise OSError(" ".join(str(error).split())) from None
