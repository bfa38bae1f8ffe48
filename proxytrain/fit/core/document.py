"""A fit of any kind as a JSON document that is whole or absent, with a checksum of what it says."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FORMAT = "proxytrain fit 2"
CURVE_FORMAT = "proxytrain curve fit 2"
OPTIMUM_FORMAT = "proxytrain optimum 1"


def _lines(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, allow_nan=False)


def write_whole(path: Path, content: Mapping[str, Any], render: Callable[[Mapping[str, Any]], str] = _lines) -> None:
    """JSON that is whole or absent, with a checksum of what it says."""
    content = json.loads(json.dumps(content))
    text = render({**content, "checksum": checksum(content)})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
