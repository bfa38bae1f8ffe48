"""The JSON documents of a store: which keys each must have, of which kinds, and which names may be paths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from proxytrain.errors import RequestError
from proxytrain.files.atomic import read_json

ID = re.compile(r"[A-Za-z0-9]+")
NUMBER: Any = (int, float)
MAYBE: Any = (int, float, type(None))
PARAMS = dict.fromkeys(("embedding", "attention", "mlp", "norm", "readout"), int)
SEGMENT = {"parent": (list, type(None)), "status": str, "end": int, "seconds": NUMBER, "path_seconds": NUMBER}
RESULT = {
    "id": str,
    "status": str,
    "final_loss": MAYBE,
    "val_se": MAYBE,
    "bits_per_byte": MAYBE,
    "tokens": int,
    "lineage": str,
    "end": int,
    "recipe_id": str,
    "recipe": {"model": {"width": int, "depth": int}, "batch_tokens": int, "init_seed": int, "data_seed": int},
    "params": PARAMS,
    "flops": NUMBER,
    "lr": NUMBER,
}
DIVERGED: dict[str, Any] = {"val_se": None, "bits_per_byte": None}  # what the result of a run that diverged lacks


def checked(
    path: Path, kinds: dict[str, Any], same: dict[str, Any], absent: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Return a JSON object that has these keys, of these kinds; `absent` are values of keys that it may lack."""
    try:
        content = read_json(path)
    except RequestError:
        content = {}
    if content is None:
        return None
    content = {**absent, **content} if absent and isinstance(content, dict) else content
    if not fits(content, kinds) or any(content[k] != value for k, value in same.items()):
        raise RequestError(f"{path}: not what proxytrain writes there; delete {path.parent}, and it is made again")
    return dict(content)


def fits(value: Any, kinds: Any) -> bool:
    """Return whether a JSON value is of one of these types, or a mapping that has all of these keys, of these kinds."""
    if isinstance(kinds, dict):
        return isinstance(value, dict) and all(fits(value.get(k, ...), kind) for k, kind in kinds.items())
    return isinstance(value, kinds)


def check_id(text: object) -> str:
    """Return a name from a plan or a result, which must not lead out of the store."""
    if not isinstance(text, str) or not ID.fullmatch(text):
        raise RequestError(f"{text!r}: no id of a run or a segment")
    return text
