"""Plain trees as typed sections: unknown keys, wrong types and impossible values are refused by name.

`msgspec` checks a tree against the classes. What it finds is repaired where only the spelling differs (`4M` for a
number, a text for a list of one) and otherwise refused in one line: key, value and what is allowed.
"""

from __future__ import annotations

import re
import types
import typing
from typing import Any, Literal, TypeVar

import msgspec

from proxytrain.errors import RequestError, did_you_mean
from proxytrain.types import limits, parse_number

S = TypeVar("S")
Path = tuple[str | int, ...]
NEEDED = {
    "int": "a whole number, such as 4000000, 4e6 or 4M",
    "float": "a number, such as 0.01 or 1e-2",
    "bool": "true or false",
    "str": "a text",
    "array": "a list",
    "object": "a mapping of config keys",
}


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of keys of the configuration."""


class Choice(Section, frozen=True, tag_field="name"):
    """A group whose key `name` chooses one class of several."""

    @property
    def name(self) -> str:
        """Return the name that chooses this class."""
        return _tag(type(self))


def build(cls: type[S], tree: Any, key: str = "") -> S:
    """Return a plain tree as an instance of `cls`.

    Parameters
    ----------
    cls : a `Section`, or any type that `msgspec` knows
    tree : as Hydra composes it; it is left as it is
    key : where the tree stands in the configuration, for messages

    Raises
    ------
    RequestError
        One line that names the key, its value and what is allowed.
    """
    while True:  # each round repairs one value, or raises
        try:
            return msgspec.convert(tree, cls)
        except msgspec.ValidationError as error:
            message, _, where = str(error).partition(" - at `$")
            path = tuple(int(i) if i else name for name, i in re.findall(r"\.(\w+)|\[(\d+)\]", where))
            tree = _replaced(tree, path, _repaired(cls, tree, path, message, key))


def _repaired(cls: Any, tree: Any, path: Path, message: str, key: str) -> Any:
    """Return the value at a path in the spelling that its type asks for; raise where no spelling helps."""
    if message.startswith("Object"):  # contains an unknown field, or lacks one
        kind, value = _at(cls, tree, path)
        raise RequestError(
            _wrong_fields(_dotted(key, path), _one(kind, value), message.split("`")[1], "unknown" in message)
        )
    if message.startswith("Invalid value"):  # of a name that chooses a class
        kind, value = _at(cls, tree, path[:-1])
        names = [_tag(c) for c in typing.get_args(kind)]
        return _refuse(_dotted(key, path[:-1]), value[path[-1]], "unknown; ", names)
    kind, value = _at(cls, tree, path)
    here, number, wanted = _dotted(key, path), parse_number(value), re.match(r"Expected `(\w+)[^`]*`(, got)?", message)
    if allowed := _literals(kind):
        if isinstance(value, bool) and {"on", "off"} <= set(allowed):
            return "on" if value else "off"  # as YAML reads these words
        if number in allowed and not isinstance(value, int):
            return int(number or 0)
        return _refuse(here, value, "", allowed)
    if wanted is None:  # the class's own check
        raise RequestError(message)
    what, is_type = wanted.groups()
    if is_type and number is not None and what == "int" and float(number).is_integer():
        return int(number)
    if is_type and number is not None and what == "float":
        return number
    if what == "str" and number is not None:
        return str(value)
    if what == "array" and isinstance(value, str):
        return [value]
    if not is_type and number is not None and abs(number) < float("inf"):
        raise RequestError(f"{here}={value}: must be {limits(_meta(kind))}")
    raise RequestError(f"{here}={value if what in ('int', 'float') else repr(value)}: {NEEDED[what]} is needed")


def _refuse(key: str, value: Any, why: str, allowed: list[Any]) -> Any:
    text = f"{why}; " if why else ""
    raise RequestError(
        f"{key}={value}: {text}allowed are {', '.join(map(str, allowed))}{did_you_mean(str(value), allowed)}"
    )


def _wrong_fields(key: str, kind: type, field: str, unknown: bool) -> str:
    """Return the line about a key that a section does not have, or lacks."""
    if not unknown:
        return f"{_dotted(key, (field,))}: missing; give it a value"
    known = [*(["name"] if issubclass(kind, Choice) else []), *kind.__struct_fields__]  # type: ignore[attr-defined]
    return (
        f"{_dotted(key, (field,))}: no such key{did_you_mean(field, known)}; {key or 'config'} has {', '.join(known)}"
    )


def _at(kind: Any, value: Any, path: Path) -> tuple[Any, Any]:
    """Return type and value at a path below a type and a value."""
    for part in path:
        kind = _one(kind, value)
        kind = (
            typing.get_args(kind)[0]
            if isinstance(part, int)
            else typing.get_type_hints(kind, include_extras=True)[part]
        )
        value = value[part]
    return kind, value


def _one(kind: Any, value: Any) -> Any:
    """Return the class that a value is of, where a type is a union."""
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        return kind
    members = [m for m in typing.get_args(kind) if m is not type(None)]
    name = value.get("name") if isinstance(value, dict) else None
    return next((m for m in members if name and getattr(m, "__struct_config__", None) and _tag(m) == name), members[0])


def _tag(kind: type[Choice]) -> str:
    return str(kind.__struct_config__.tag)


def _literals(kind: Any) -> list[Any]:
    """Return the values of a `Literal`, or of one in a union with None."""
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    return [v for m in typing.get_args(kind) if typing.get_origin(m) is Literal for v in typing.get_args(m)]


def _meta(kind: Any) -> msgspec.Meta:
    """Return the range of a number's type, or of one in a union with None."""
    found = [m for k in (kind, *typing.get_args(kind)) for m in getattr(k, "__metadata__", ())]
    return typing.cast(msgspec.Meta, found[0])


def _replaced(tree: Any, path: Path, value: Any) -> Any:
    """Return a copy of a tree with another value at a path."""
    if not path:
        return value
    copy: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = _replaced(tree[path[0]], path[1:], value)
    return copy


def _dotted(key: str, path: Path) -> str:
    for part in path:
        key = f"{key}[{part}]" if isinstance(part, int) else f"{key}.{part}" if key else part
    return key
