"""How a function becomes a verb of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

Run = Callable[[argparse.Namespace], int]
Flag = tuple[tuple[str, ...], dict[str, Any]]


class Verb(NamedTuple):
    text: str
    flags: tuple[Flag, ...]
    run: Run


VERBS: dict[str, Verb] = {}


def verb(text: str, *flags: Flag) -> Callable[[Run], Run]:
    """Enter a function as the verb of its name; `text` is its help, `flags` are its own beside the common ones."""

    def enter(function: Run) -> Run:
        VERBS[function.__name__] = Verb(text, flags, function)
        return function

    return enter


def flag(*names: str, help: str, values: tuple[str, ...] = ()) -> Flag:
    """A switch, or with `values` an option that takes one value for each of these names."""
    if values:
        return names, {"nargs": len(values), "metavar": values, "help": help}
    return names, {"action": "store_true", "help": help}


JSON = flag("--json", help="one JSON object on standard output, and nothing else there")
