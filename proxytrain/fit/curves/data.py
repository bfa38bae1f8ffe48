"""What a fit of curves rests on, beside its numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CurveData:
    """The curves that were fitted.

    Attributes
    ----------
    curves, schedules : how many
    names, hash : of the curves, and the SHA-256 of their values
    tokens_per_step : tokens per update; None where the curves do not have it
    unsure : SD of log loss that smoothing leaves unknown
    """

    curves: int
    names: list[str]
    schedules: int = 0
    hash: str = ""
    tokens_per_step: float | None = None
    unsure: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.unsure < 1:
            raise ValueError(f"unsure={self.unsure}: no share")
