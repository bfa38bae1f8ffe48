"""What a fit of final losses rests on, beside its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class FitData:
    """The table that was fitted, and how it was read.

    Attributes
    ----------
    source, hash : where the table is from, and the SHA-256 of it as it was read
    only : the variable of a table with one (params, tokens or flops); None where it has two
    params : the column that is N
    rows, fitted : finished runs in the table, and those that were fitted
    schedule, group : that are predicted, where the table has several
    ignored_columns : columns that were not read
    reading : a line for each thing that was read as something
    target : the run of `Fit.prediction`, as `Fit.predict` takes it
    own_exponents : the test that `law=shared_exponents` makes
    """

    source: str
    hash: str
    only: str | None
    params: str
    rows: int
    fitted: int
    schedule: str | None
    group: str | None
    ignored_columns: list[str]
    reading: list[str]
    target: dict[str, float] | None = None
    own_exponents: dict[str, Any] | None = None
