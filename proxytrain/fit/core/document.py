"""A fit of any kind as a JSON document: typed, whole or absent, with a checksum of what it says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import RequestError
from proxytrain.files.atomic import write_text
from proxytrain.files.documents import checksum, decode_document

LOSSES_FORMAT = "proxytrain fit 2"
CURVES_FORMAT = "proxytrain curve fit 2"
OPTIMUM_FORMAT = "proxytrain optimum 1"
D = TypeVar("D")


def _lines(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, allow_nan=False)


def save_fit(path: str | os.PathLike[str], document: object, render: Callable[[dict[str, Any]], str] = _lines) -> None:
    """Write a document whose fields may be numpy arrays, with a checksum, whole.

    Raises
    ------
    ValueError
        If a number is NaN or infinite, which JSON does not have.
    """
    content: dict[str, Any] = json.loads(json.dumps(msgspec.to_builtins(document, enc_hook=_plain), allow_nan=False))
    write_text(Path(path), render({**content, "checksum": checksum(content)}) + "\n")


def read_fit(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `save_fit` wrote as plain values, without its checksum.

    Raises
    ------
    RequestError
        The file is missing, is no JSON object, or does not say what its checksum is of.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(f"{path}: no such file")
    content = decode_document(path.read_bytes(), dict[str, Any], path, "`proxytrain fit` writes such a file")
    written = content.pop("checksum", None)
    if written is not None and written != checksum(content):
        raise RequestError(f"{path}: not as it was written (edited by hand?); fit again")
    return content


def as_document(content: dict[str, Any], cls: type[D]) -> D:
    """Return plain values as `cls`; a field of type `Array` takes nested lists of numbers.

    Raises
    ------
    ValueError
        The content is something else.
    """
    return msgspec.convert(content, cls, dec_hook=_array)


def one_line_lists(value: Any, indent: int = 0) -> str:
    """Return JSON with a line for each entry, and lists and small mappings of plain values on one line."""
    pad = "  " * (indent + 1)
    if isinstance(value, dict):
        if not value or (indent >= 2 and not any(isinstance(v, dict | list) for v in value.values())):
            return json.dumps(value)
        body = ",\n".join(f"{pad}{json.dumps(str(k))}: {one_line_lists(v, indent + 1)}" for k, v in value.items())
        return "{\n" + body + "\n" + "  " * indent + "}"
    if isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        return "[\n" + ",\n".join(pad + one_line_lists(v, indent + 1) for v in value) + "\n" + "  " * indent + "]"
    return json.dumps(value)


def _plain(value: object) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise NotImplementedError(type(value))


def _array(kind: type, value: Any) -> Array:
    if not isinstance(value, Sequence):
        raise ValueError(f"expected a list of numbers, got {value!r}")
    return np.array(value, dtype=float)
