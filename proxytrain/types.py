"""Numbers: their spelling, and their ranges as types that `msgspec` checks."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated, Any

from msgspec import Meta

_MOST = sys.float_info.max  # neither infinity nor NaN is a setting
_LEAST = sys.float_info.min  # above 0; msgspec's own limit there is denormal, which equals 0 where those are flushed
Positive = Annotated[int, Meta(gt=0)]
Natural = Annotated[int, Meta(ge=0)]
PositiveFloat = Annotated[float, Meta(ge=_LEAST, le=_MOST)]
Size = Annotated[float, Meta(ge=0, le=_MOST)]
Negative = Annotated[float, Meta(ge=-_MOST, le=-_LEAST)]
Share = Annotated[float, Meta(ge=0, lt=1)]
WholeShare = Annotated[float, Meta(ge=0, le=1)]
PositiveShare = Annotated[float, Meta(ge=_LEAST, le=1)]
SUFFIXES = {"K": 3, "M": 6, "B": 9, "G": 9, "T": 12}  # powers of ten; B as of tokens, G as of bytes


def parse_number(value: Any) -> float | None:
    """Return `4e6`, `4M`, `4_000_000` and 4000000 alike as a number; None if it is no number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if isinstance(value, str) and value:
        power = SUFFIXES.get(value[-1].upper(), 0)
        digits = value[:-1] if power else value
        for text, scale in ((f"{digits}e{power}", 1.0), (digits, 10.0**power)):  # 2.01e6 is whole, 2.01 * 1e6 is not
            with contextlib.suppress(ValueError):
                return float(text) * scale
    return None


def limits(meta: Meta) -> str:
    """Return a range in words, such as "at least 0 and below 1"."""
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    bounds = {words[k]: bound for k in words if (bound := getattr(meta, k)) is not None and abs(bound) != _MOST}
    zero = {"at least": "above", "at most": "below"}
    return " and ".join(f"{zero[w]} 0" if abs(bound) == _LEAST else f"{w} {bound:g}" for w, bound in bounds.items())
