"""JSON documents as typed classes: read, checked and written by `msgspec`.

A document is a `Document`. A field with a default may be absent from the file, so an old file stays readable when a
field is added. Keys that the class does not have are left unread.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from proxytrain.errors import RequestError
from proxytrain.files.atomic import write_bytes

D = TypeVar("D")


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON file of ours as a class."""


def read_document(path: Path, cls: type[D], advice: str) -> D | None:
    """Return the content of a JSON file as `cls`; None where there is no file.

    Parameters
    ----------
    path : of the file
    cls : a `Document`, or any type that `msgspec` knows
    advice : what to do about a file that is not whole, such as "delete it and run again"

    Raises
    ------
    RequestError
        If the file is not JSON, or not what `cls` describes.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return decode_document(content, cls, path, advice)


def decode_document(content: bytes, cls: type[D], path: Path, advice: str) -> D:
    """Return JSON text as `cls`; raises as `read_document`, whose file `path` is."""
    try:
        return msgspec.json.decode(content, type=cls)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"{path}: not what proxytrain writes there ({error}); {advice}") from None


def write_document(path: Path, document: Any, *, indent: int | None = 1) -> None:
    """Write a document as JSON, whole; `indent=None`: on one line.

    Raises
    ------
    ValueError
        If a number is NaN or infinite, which JSON does not have.
    """
    write_bytes(path, encode_document(document, indent=indent))


def encode_document(document: Any, *, indent: int | None = 1) -> bytes:
    """Return a document as JSON text; raises as `write_document`."""
    return (json.dumps(msgspec.to_builtins(document), indent=indent, allow_nan=False) + "\n").encode()


def checksum(content: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of plain JSON content, whatever its layout."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
