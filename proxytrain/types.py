"""Numbers: their spelling, and their ranges as types (low, whether low is left out, upper limit) for `config.build`."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

_INF = float("inf")
Positive = Annotated[int, (0, True, _INF)]
Natural = Annotated[int, (0, False, _INF)]
PositiveFloat = Annotated[float, (0, True, _INF)]
Size = Annotated[float, (0, False, _INF)]
Share = Annotated[float, (0, False, 1)]
SUFFIXES = {"K": 3, "M": 6, "B": 9, "G": 9, "T": 12}  # powers of ten; B as of tokens, G as of bytes


def parse_number(value: Any) -> float | None:
    """`4e6`, `4M`, `4_000_000` and 4000000 alike; None if it is no number."""
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
