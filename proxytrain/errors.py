"""The two ways in which proxytrain says no to its user; everything else that is raised is a bug.

A `RequestError` is a wrong request (exit code 2): its message is one line that names the key or file, the value, and
what is allowed. A `Refusal` is a right request that the data cannot answer (exit code 1): its message says what is
missing and which runs would supply it.
"""

from __future__ import annotations

from collections.abc import Iterable


class _OneLine(Exception):
    """An exception whose text is one line, whatever a repeated value contains."""

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())


class RequestError(_OneLine, ValueError):
    """The request is wrong: one line naming the key or file, the value and what is allowed."""


class Refusal(_OneLine):
    """The data cannot answer: what is missing, and which runs would supply it."""


def did_you_mean(word: str, known: Iterable[object]) -> str:
    """A hint to end a message with; empty where no known word is near.

    Examples
    --------
    >>> did_you_mean("cosin", ["cosine", "wsd"])
    ' (did you mean cosine?)'
    """
    import difflib

    near = [k for k in difflib.get_close_matches(word, map(str, known), n=2) if k != word]
    return f" (did you mean {near[0]}?)" if near else ""
