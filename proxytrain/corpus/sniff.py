"""How a file of text is read: decided by its content, and by its suffix only where content allows both.

JSON lines and arrays are recognised under any suffix if every record at the beginning has the key of the text. Source
text that happens to be JSON (`package.json`) stays text.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Literal

from proxytrain.corpus.kinds import PARQUET, Binary, binary_of
from proxytrain.corpus.records import BETWEEN, is_cut, shown
from proxytrain.corpus.unpack import HEAD, Unpacked, stem
from proxytrain.errors import RequestError

LINES = (".jsonl", ".ndjson", ".jsonlines")
JSON = (*LINES, ".json")
TABLES = (".csv", ".tsv")
LOOKED = 20  # records at the beginning
LONGEST = 16 << 20  # bytes that are looked at where one record is longer than HEAD

Format = Literal["text", "lines", "values", "csv", "parquet", "saved"]


@dataclass(frozen=True)
class Reading:
    """How one file is read.

    Attributes
    ----------
    format : text is plain; values are JSON that is not one record per line; saved is a folder of `datasets`
    binary : what it is instead of text
    keyless : keys of records that lack the key of the text; read as plain text
    unusual : why the suffix does not say how it is read
    """

    format: Format
    binary: Binary | None = None
    keyless: str = ""
    unusual: str = ""


@dataclass
class Shape:
    """The beginning of a JSON file.

    Attributes
    ----------
    values : the first records
    array : whether they stand in an array
    lines : whether each has a line of its own
    valid : whether nothing else than JSON follows them, as far as was looked
    cut : whether the last one reaches beyond what was looked at
    whole : whether they are all
    """

    values: list[object] = field(default_factory=list)
    array: bool = False
    lines: bool = True
    valid: bool = True
    cut: bool = False
    whole: bool = False


def reading_of(path: str, opened: Unpacked, text_key: str) -> Reading:
    """Return how a file is read; `opened` is consumed.

    Raises
    ------
    RequestError : JSON that holds documents in a form that is not read
    """
    head = opened.head()
    suffix = os.path.splitext(stem(path))[1]
    if head.startswith(PARQUET) and not opened.packed:
        return Reading("parquet", unusual="" if suffix == ".parquet" else "Parquet")
    if suffix == ".parquet" and not opened.packed:
        return Reading("parquet")  # damaged, which its reader reports
    if binary := binary_of(head):
        return Reading("text", binary)
    start = head.lstrip()[:1]
    if start in (b"{", b"["):
        head = opened.file.read(HEAD)
        shape = shape_of(head, whole=len(head) < HEAD)
        if shape.cut and not shape.values:  # one record longer than the head
            head += opened.file.read(LONGEST)
            shape = shape_of(head, whole=len(head) < LONGEST)
        found = _json(path, suffix, shape, text_key)
        if found.format != "text" or suffix not in (*TABLES, ".ipynb"):
            return found
    if suffix in LINES:
        return Reading("lines")
    if suffix in TABLES:
        return Reading("csv")
    return Reading("text", unusual="plain text though each is a notebook" if suffix == ".ipynb" else "")


def shape_of(head: bytes, whole: bool) -> Shape:
    """Return the first records of what begins like JSON; `whole` says that nothing follows `head`."""
    text = head.decode("utf-8", errors="ignore")
    decode, shape, at = json.JSONDecoder().raw_decode, Shape(), 0
    at = len(text) - len(text.lstrip())
    if text.startswith("[", at):
        shape.array, at = True, at + 1
    while len(shape.values) < LOOKED:
        at = BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing too
        if at == len(text) or (shape.array and text[at] == "]"):
            shape.whole = whole
            break
        try:
            value, end = decode(text, at)
        except (ValueError, RecursionError) as error:
            shape.cut = not whole and is_cut(error, text)
            shape.valid = shape.cut
            break
        shape.values.append(value)
        shape.lines &= "\n" not in text[at:end] and text[end : end + 2].strip(" \r")[:1] in ("", "\n")
        at = end
    shape.lines &= not shape.array
    return shape


def _json(path: str, suffix: str, shape: Shape, text_key: str) -> Reading:
    """Return how a file that begins with a brace or a bracket is read."""
    records: Format = "lines" if shape.lines else "values"
    first = shape.values[0] if shape.values else None
    is_json = suffix in JSON
    keyed = [isinstance(v, dict) and text_key in v for v in shape.values]
    if shape.array and all(isinstance(v, str) for v in shape.values) and shape.values:
        return Reading("values", unusual="an array of strings, each a document") if is_json else Reading("text")
    if suffix in LINES and not shape.array and (shape.lines or not keyed):
        return Reading("lines")
    if any(keyed) if is_json else all(keyed) and shape.valid and bool(keyed):
        if len(shape.values) == 1 and shape.whole:
            _refuse_columns(path, first, text_key)
        return Reading(records, unusual="" if is_json else "JSON")
    if suffix in LINES:
        return Reading("lines" if not shape.array else "values")
    if is_json and not shape.valid:
        return Reading("text", unusual="plain text, since it is not valid JSON")
    if not isinstance(first, dict) or not shape.valid:
        return Reading("text")
    if is_json and len(shape.values) == 1 and shape.whole and not shape.array:
        _refuse_wrapped(path, first, text_key)
        return Reading("text", unusual="plain text though each is one JSON object")
    return Reading("text", keyless=shown([*first])) if is_json or len(shape.values) > 1 else Reading("text")


def _refuse_columns(path: str, first: object, text_key: str) -> None:
    """Refuse a table by columns, as pandas writes it."""
    value = first.get(text_key) if isinstance(first, dict) else None
    if isinstance(value, dict | list):
        raise RequestError(
            f"{path}: JSON by columns: {text_key!r} holds all documents. "
            "Write JSON lines (pandas: orient='records', lines=True)."
        )


def _refuse_wrapped(path: str, value: dict[str, object], text_key: str) -> None:
    """Refuse one object that holds a list of documents under another key."""
    for name, inner in value.items():
        if isinstance(inner, list) and inner and isinstance(inner[0], dict) and text_key in inner[0]:
            raise RequestError(
                f"{path}: one JSON object whose key {name!r} holds the documents. "
                f"Write JSON lines: jq -c '.{name}[]' FILE."
            )
