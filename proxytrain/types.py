"""Ranges of numbers as types: (low, whether low is left out, upper limit), read by `config.build`."""

from __future__ import annotations

from typing import Annotated

_INF = float("inf")
Positive = Annotated[int, (0, True, _INF)]
Natural = Annotated[int, (0, False, _INF)]
PositiveFloat = Annotated[float, (0, True, _INF)]
Size = Annotated[float, (0, False, _INF)]
Share = Annotated[float, (0, False, 1)]
