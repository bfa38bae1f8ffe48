"""Overrides as they were typed: which keys they give, and texts that Hydra would read as numbers.

`read` refuses what Hydra's grammar does not take, and what it takes for something else than was meant, in one line
that shows the form to type (`shell.py`).
"""

from __future__ import annotations

import functools
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from proxytrain.errors import RequestError

# keys that hold mappings and lists of the user's own making, on which Hydra imposes no structure
FREE = ("sweep.target", "sweep.grids", "fit.columns", "fit.where", "launch.sbatch_args")
NAMING = ("sweep.name", "store", "experiment", "table", "curves", "wandb", "file", "params")  # typed twice: reported
Kind = Literal["text", "text or null", "texts"]


def read(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with texts kept as typed: `sweep.name=1e5` is the text 1e5, not the number 100000.0.

    Raises
    ------
    RequestError
        For a word that is no override or that the shell changed; the line shows what to type.
    """
    from proxytrain.config import shell

    out = []
    for number, override in enumerate(overrides):
        value = parsed(override)
        if value is None or not value.key_or_group:
            raise RequestError(shell.advice(overrides, number))
        if trouble := shell.changed(overrides, number):
            raise RequestError(trouble)
        out.append(_as_typed(override, value.key_or_group, value.value()))
    return out


@functools.lru_cache(maxsize=4096)
def parsed(override: str) -> Any:
    """Return Hydra's reading of an override; None where its grammar does not take it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def given(overrides: Sequence[str]) -> dict[str, str]:
    """Return the dotted keys that overrides set, each with the word that says it (the last one counts)."""
    found: dict[str, str] = {}
    for override in overrides:
        if value := parsed(override):
            found |= dict.fromkeys((key for key, _ in leaves({value.key_or_group: value.value()})), override)
    return found


def twice(overrides: Sequence[str]) -> Iterator[str]:
    """Yield a line for each key that is typed twice with two values: side by side, or a key that names something.

    Nothing is yielded where a word is no override: that has a line of its own.
    """
    if not all(parsed(o) for o in overrides if "=" in o):
        return
    last: dict[str, tuple[int, str]] = {}
    for number, override in enumerate(overrides):
        key, _, value = override.lstrip("+").partition("=")
        at, before = last.get(key, (number, value))
        if before != value and (key in NAMING or (at == number - 1 and (key not in FREE or value[:1] in "[{"))):
            yield f"{key} is typed twice: {key}={value} counts, {key}={before} does not"
        last[key] = number, value


def quoted(value: str) -> str:
    """Return a text as Hydra's grammar reads it back, whatever is in it."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value) + "'"


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a tree, with their values."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@functools.cache
def kind(key: str) -> Kind | None:
    """Return whether a key holds a text or a list of texts; None for any other key."""
    found = _types(key)
    if list[str] in found:
        return "texts"
    return ("text or null" if type(None) in found else "text") if str in found else None


def known(key: str) -> bool:
    """Return whether the schema has a key (or a group of keys) of this name."""
    return key == "experiment" or bool(_types(key))


def depths(text: str) -> list[int]:
    """Return how deep in quotes, brackets and braces each character stands, and, last, what is left open.

    Round brackets count where they come in pairs; a quote opens where a value begins, so that it's has none.
    """
    pair = text.count("(") == text.count(")")
    opening, closing = "[{(" if pair else "[{", "]})" if pair else "]}"
    found, depth, quote, before = [], 0, "", ","
    for c in text:
        if quote:
            quote, depth = (quote, depth) if c != quote or before == "\\" else ("", depth - 1)
        elif c in "'\"" and before in ",:[{(":
            quote, depth = c, depth + 1
        else:
            depth += (c in opening) - (c in closing)
        found.append(depth)
        before = c if quote or not c.isspace() else before
    return [*found, depth]


def pieces(text: str, separator: str = ",") -> list[str]:
    """Return the parts of a text between separators that stand outside quotes and brackets.

    Examples
    --------
    >>> pieces("a,[b,c],'d,e'")
    ['a', '[b,c]', "'d,e'"]
    """
    cuts = [i for i, (c, depth) in enumerate(zip(text, depths(text))) if c == separator and depth == 0]
    return [text[a + 1 : b] for a, b in zip([-1, *cuts], [*cuts, len(text)])]


def _types(key: str) -> list[Any]:
    from proxytrain.config.schema import Config  # here, so that `--help` does not wait for numpy
    from proxytrain.config.section import Section

    found: list[Any] = [Config]
    for part in key.split("."):
        classes = [c for c in found if isinstance(c, type) and issubclass(c, Section)]
        hints = [h for c in classes if (h := {"name": str, **typing.get_type_hints(c)}.get(part)) is not None]
        found = [m for h in hints for m in (typing.get_args(h) if _union(h) else [h])]
    return found


def _union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def _as_typed(override: str, key: str, value: Any) -> str:
    """Return the override with quotes around each text that Hydra reads as a number, true or false."""
    start, _, typed = override.partition("=")
    typed, what = typed.strip(), kind(key)
    if what in ("text", "text or null") and isinstance(value, bool | int | float):
        return f"{start}={quoted(typed)}"
    if what == "texts" and isinstance(value, list) and any(isinstance(v, bool | int | float) for v in value):
        words = [part.strip() for part in pieces(typed[1:-1])]
        plain = (quoted(w) if isinstance(v, bool | int | float) else w for w, v in zip(words, value, strict=True))
        return f"{start}=[{','.join(plain)}]"
    if what == "texts" and isinstance(value, bool | int | float):
        return f"{start}={quoted(typed)}"
    return override
