"""A fit of any kind as a JSON document that is whole or absent, with a checksum of what it says."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from proxytrain.errors import RequestError

LOSSES_FORMAT = "proxytrain fit 2"
CURVES_FORMAT = "proxytrain curve fit 2"
OPTIMUM_FORMAT = "proxytrain optimum 1"


def _lines(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, allow_nan=False)


def write_whole(
    path: str | os.PathLike[str], content: Mapping[str, Any], render: Callable[[Mapping[str, Any]], str] = _lines
) -> None:
    """Write JSON with a checksum of what it says: under a temporary name, synced, then renamed."""
    path = Path(path)
    content = json.loads(json.dumps(content))
    text = render({**content, "checksum": checksum(content)})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_whole(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `write_whole` wrote, without its checksum.

    Raises
    ------
    RequestError
        The file is missing, is no JSON object, or does not say what its checksum is of.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(f"{path}: no such file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path}: is not a fit that was saved by proxytrain ({error})") from None
    if not isinstance(content, dict):
        raise RequestError(f"{path}: is not a fit that was saved by proxytrain (no JSON object)")
    written = content.pop("checksum", None)
    if written is not None and written != checksum(content):
        raise RequestError(f"{path}: not as it was written (edited by hand?); fit again")
    return content


def checksum(content: Mapping[str, Any]) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a document."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
