"""Documents out of files of records: JSON lines, JSON arrays and other JSON values, CSV and TSV, Parquet.

All of them are streamed: memory holds one record, or one batch of a Parquet file.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from proxytrain.corpus.ends import Ends
from proxytrain.corpus.pieces import text_pieces
from proxytrain.corpus.unpack import stem
from proxytrain.errors import RequestError

CHUNK = 1 << 20  # bytes that are decoded at a time
LARGEST = 1 << 28  # characters of one JSON value
DELIMITERS = (",", ";", "|", "\t")
BETWEEN = re.compile(r"[\s,]*")
SHOWN = 300  # characters of keys or columns in a message

Texts = Iterator[tuple[str, bytes]]  # where it comes from, text


def read_lines(path: str, file: BinaryIO, text_key: str, ends: Ends) -> Texts:
    """Yield the documents of JSON lines.

    Raises
    ------
    RequestError : a line that is not a JSON object with that key
    """
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{where}: not JSON ({error}). The file is read as JSON lines.") from None
        yield from text_pieces(where, _text_of(where, row, text_key), ends)


def read_values(path: str, file: BinaryIO, text_key: str, ends: Ends) -> Texts:
    """Yield the documents of JSON arrays of objects or strings, or of objects one after the other.

    Raises
    ------
    RequestError : what follows is not JSON, or a value has no such key
    """
    for number, value in enumerate(json_values(path, file), start=1):
        where = f"{path}, value {number}"
        text = value if isinstance(value, str) else _text_of(where, value, text_key)
        yield from text_pieces(where, text, ends)


def json_values(path: str, file: BinaryIO) -> Iterator[object]:
    """Yield the values of a JSON stream, and the elements of its top-level arrays."""
    decode, utf8 = json.JSONDecoder().raw_decode, codecs.getincrementaldecoder("utf-8")()
    text, at, inside, count, over = "", 0, False, 0, False
    while True:
        at = BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing too
        mark = text[at : at + 1]
        if mark == ("]" if inside else "["):
            inside, at = mark == "[", at + 1
            continue
        try:
            value, end = decode(text, at)
        except (ValueError, RecursionError) as error:
            if over and not mark and not inside:
                return
            if over or len(text) - at > LARGEST or not is_cut(error, text):
                why = "ends inside its array" if over and not mark else f"not JSON ({error})"
                raise RequestError(f"{path}, value {count + 1}: {why}. Mend it, or leave it out.") from None
            chunk = file.read(max(CHUNK, len(text) - at))
            over = not chunk
            text, at = text[at:] + utf8.decode(chunk, final=over), 0
            continue
        yield value
        at, count = end, count + 1


def is_cut(error: Exception, text: str) -> bool:
    """Return whether a JSON error may come from the end of the text that was read so far."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.pos >= len(text) - 12 or error.msg.startswith("Unterminated string")


def read_csv(path: str, file: BinaryIO, text_key: str, ends: Ends) -> Texts:
    """Yield the cells of one column of a CSV or TSV file.

    Raises
    ------
    RequestError : no such column, or a row with another number of cells than the header
    """
    csv.field_size_limit(LARGEST)
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    header = text.readline()
    delimiter, names = _columns(path, header, text_key)
    column, number = names.index(text_key), 1
    rows = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        for row in rows:
            number = rows.line_num + 1
            if not row:
                continue
            if len(row) != len(names):
                raise RequestError(
                    f"{path}, line {number}: {len(row)} cells where the header has {len(names)}. "
                    "Quote cells that hold line breaks, quotes or separators."
                )
            where, cell = f"{path}, line {number}", row[column].encode("utf-8", "surrogateescape")
            try:
                yield from text_pieces(where, cell.decode(), ends)
            except UnicodeDecodeError:
                yield where, cell  # left out, and counted, with all that is not UTF-8
    except csv.Error as error:
        raise RequestError(f"{path}, line {number + 1}: not CSV ({error}). Double the quotes inside a cell.") from None


def read_parquet(path: str, text_key: str, ends: Ends) -> Texts:
    """Yield the cells of one column of a Parquet file.

    Raises
    ------
    RequestError : no such column, or a damaged file
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            if text_key not in file.schema_arrow.names:
                raise RequestError(
                    f"{path}: no column data.text_key={text_key!r} (found: {shown(file.schema_arrow.names)})"
                )
            row = 0
            for batch in file.iter_batches(batch_size=256, columns=[text_key], use_threads=False):
                for text in batch.column(0).to_pylist():
                    row += 1
                    yield from text_pieces(f"{path}, row {row}", text, ends)
    except pyarrow.ArrowException as error:
        raise RequestError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from None


def shown(names: list[str]) -> str:
    """Return names in a row, cut where they are too many."""
    text = ", ".join(names) or "none"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _text_of(where: str, row: object, text_key: str) -> object:
    if not isinstance(row, dict) or text_key not in row:
        keys = shown([*row]) if isinstance(row, dict) else f"a {type(row).__name__}"
        raise RequestError(f"{where}: no key data.text_key={text_key!r} (found: {keys})")
    return row[text_key]


def _columns(path: str, header: str, text_key: str) -> tuple[str, list[str]]:
    """Return the separator and the columns: the separator is the one that gives the column of the text."""
    found: dict[str, list[str]] = {}
    for delimiter in sorted(DELIMITERS, key="\t".__ne__ if stem(path).endswith(".tsv") else str.isspace):
        try:
            found[delimiter] = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        except csv.Error:
            found[delimiter] = []
    delimiter = next((d for d, names in found.items() if text_key in names), "")
    if not delimiter:
        names = max(found.values(), key=len)
        key = f"data.text_key={text_key!r}"
        raise RequestError(f"{path}: no column {key} (found: {shown(names)}). Name the column of the text.")
    names = found[delimiter]
    if names.count(text_key) > 1:
        raise RequestError(f"{path}: {names.count(text_key)} columns are named {text_key!r}. Rename all but one.")
    return delimiter, names
