"""The probability that an interval is meant to hold the loss of one new run."""

from __future__ import annotations

from proxytrain.errors import RequestError


def checked_level(level: object, key: str = "level") -> float:
    """Return a level that is a probability; `key` names it in the error.

    Raises
    ------
    RequestError
        It is no float between 0 and 1, both excluded.

    Examples
    --------
    >>> checked_level(0.9)
    0.9
    """
    if not (isinstance(level, float) and 0 < level < 1):
        raise RequestError(f"{key}={level!r}: must be a number between 0 and 1")
    return level
