"""`data=files`: documents out of plain text, code, jsonl (plain, gz, zst) and parquet.

A plain text of more than 256 KiB is cut at line ends into documents of about 16 KiB, so that one large file can be
split, shuffled and read in little memory like many small ones.
"""

from __future__ import annotations

import glob
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from proxytrain.errors import RequestError

LARGE = 256 << 10
PIECE = 16 << 10
PACKED = (".gz", ".zst")


def find_files(patterns: list[str]) -> list[str]:
    """Files that match the globs (`**` is any depth), in the order of the globs, sorted within each, none twice.

    Raises
    ------
    RequestError : a glob that matches nothing, or an empty file that was named without wildcards
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        path = os.path.expanduser(pattern)
        if os.path.isfile(path) and not os.path.getsize(path):
            raise RequestError(f"data.files: {pattern} is empty")
        paths = [path] if os.path.isfile(path) else sorted(filter(os.path.isfile, glob.glob(path, recursive=True)))
        if not paths:
            raise RequestError(f"data.files: no file matches {pattern!r} (from {os.getcwd()})")
        found.update(dict.fromkeys(paths))
    if not found:
        raise RequestError("data.files is empty: name files or globs, such as data.files='[texts/**/*.md]'")
    return list(found)


def total_bytes(paths: list[str]) -> int | None:
    """Bytes of text in the files; None where packing hides it."""
    if any(path.lower().endswith((*PACKED, ".parquet")) for path in paths):
        return None
    return sum(os.path.getsize(path) for path in paths)


def read_files(paths: list[str], text_key: str) -> Iterator[tuple[str, bytes]]:
    """(where it comes from, text) of every document."""
    for path in paths:
        try:
            yield from _read_file(path, text_key)
        except (OSError, EOFError, zlib.error) as error:  # the last two, of a broken gz
            why = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise RequestError(f"{path}: cannot be read ({why})") from None


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """A text as it is, or, if it is large, in pieces that end with a line where they can."""
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


def _read_file(path: str, text_key: str) -> Iterator[tuple[str, bytes]]:
    stem, suffix = os.path.splitext(path.lower())
    if suffix == ".parquet":
        yield from _read_parquet(path, text_key)
        return
    kind = os.path.splitext(stem)[1] if suffix in PACKED else suffix
    with _unpacked(path, suffix) as file:
        if kind in (".jsonl", ".ndjson"):
            yield from _read_jsonl(path, file, text_key)
        else:
            for piece in pieces(file):
                yield path, piece


@contextmanager
def _unpacked(path: str, suffix: str) -> Iterator[BinaryIO]:
    if suffix == ".gz":
        with gzip.open(path, "rb") as file:
            yield cast(BinaryIO, file)
    elif suffix == ".zst":
        import zstandard

        with open(path, "rb") as file:
            try:
                yield io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True))
            except zstandard.ZstdError as error:
                raise RequestError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    else:
        with open(path, "rb") as file:
            yield file


def _read_jsonl(path: str, file: BinaryIO, text_key: str) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RequestError(f"{where}: not JSON ({error})") from None
        if not isinstance(row, dict) or text_key not in row:
            keys = ", ".join(row) if isinstance(row, dict) else f"a {type(row).__name__}"
            raise RequestError(f"{where}: no key data.text_key={text_key!r} (found: {keys})")
        yield from text_pieces(where, row[text_key])


def _read_parquet(path: str, text_key: str) -> Iterator[tuple[str, bytes]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            if text_key not in file.schema_arrow.names:
                raise RequestError(
                    f"{path}: no column data.text_key={text_key!r} (found: {', '.join(file.schema_arrow.names)})"
                )
            row = 0
            for batch in file.iter_batches(batch_size=256, columns=[text_key], use_threads=False):
                for text in batch.column(0).to_pylist():
                    row += 1
                    yield from text_pieces(f"{path}, row {row}", text)
    except pyarrow.ArrowException as error:
        raise RequestError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from None


def text_pieces(where: str, text: object) -> Iterator[tuple[str, bytes]]:
    """The documents of one value that should be text; null is none."""
    if text is None:
        return
    if not isinstance(text, str):
        raise RequestError(f"{where}: the text is a {type(text).__name__}, not a string")
    for piece in pieces(io.BytesIO(text.encode("utf-8", errors="surrogatepass"))):
        yield where, piece
