"""What may be asked of a fit of final losses; `conf/fit/default.yaml` and `fit_losses` use the same names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxytrain.errors import RequestError
from proxytrain.fit.core.extrapolation import checked_permission
from proxytrain.fit.core.level import checked_level

ROWS = ("runs", "last", "checkpoints")
OUTLIERS = ("drop", "keep")


@dataclass(frozen=True)
class FitConfig:
    """Options of :func:`proxytrain.fit.fit_losses`.

    Attributes
    ----------
    law : str
        A law's name (``proxytrain.fit.LAWS``), or "auto": the backtest chooses or combines.
    level : float
        Probability that an interval is meant to hold the loss of one new run.
    bootstraps : int
        Refits behind the standard errors and the parameter uncertainty.
    seed : int
        Of the fit's own random generator: the same table and seed give the same answer bit by bit.
    delta : float or None
        Huber's threshold on log loss. None: 1.345 times the seed noise where the table shows it, else 1e-3, the
        value of Hoffmann et al. (arXiv 2203.15556).
    seed_noise : float or None
        Relative standard deviation of the loss over seeds. None: estimated (repeated seeds, else residuals).
    schedule : str or None
        The learning-rate schedule to predict, where the table has several. None: the most common. Runs of the others
        enter through a fitted factor on the loss (``offset@NAME``, in log loss) where that is identified.
    group : str or None
        The group (text, mixture) to predict, where the table has several. None: the most common.
    allow_extrapolation : bool
        Predict beyond three times the largest backtested log-gap too, and say so, instead of refusing.
    columns : mapping of str to str
        Names in the table that differ from ours, e.g. ``{"params": "params_nonembedding"}``.
    where : mapping of str to value or list of values
        Column of the table to the values that a row must have to be read, e.g. ``{"split": "val"}``.
    rows : {"runs", "last", "checkpoints"} or None
        What a row of the table is: a finished run; a checkpoint, of which the last of each run is fitted; or a
        checkpoint that is fitted like a run (for constant learning rates). None: as recognised.
    outliers : {"drop", "keep"} or None
        What becomes of runs whose loss lies far off that of their neighbours. None: they are named and refused.
    """

    law: str = "auto"
    level: float = 0.9
    bootstraps: int = 400
    seed: int = 0
    delta: float | None = None
    seed_noise: float | None = None
    schedule: str | None = None
    group: str | None = None
    allow_extrapolation: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    rows: str | None = None
    outliers: str | None = None

    def __post_init__(self) -> None:
        checked_level(self.level, "fit.level")
        checked_permission(self.allow_extrapolation, "fit.allow_extrapolation")
        _require(
            "bootstraps",
            self.bootstraps,
            _whole(self.bootstraps) and self.bootstraps >= 20,
            "a whole number, 20 or more",
        )
        _require("seed", self.seed, _whole(self.seed) and self.seed >= 0, "a whole number, 0 or more")
        for key in ("delta", "seed_noise"):
            value = getattr(self, key)
            _require(
                key, value, value is None or (_number(value) and 0 < value < 1), "null, or a number between 0 and 1"
            )
        _require("columns", self.columns, _names(self.columns), "a mapping {our name: the table's name}")
        _require("where", self.where, isinstance(self.where, Mapping), "a mapping {column: value}")
        _require("rows", self.rows, self.rows in (None, *ROWS), f"null, {', '.join(ROWS)}")
        _require("outliers", self.outliers, self.outliers in (None, *OUTLIERS), f"null, {', '.join(OUTLIERS)}")


def _names(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(x, str) for pair in value.items() for x in pair)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _require(key: str, value: Any, good: bool, allowed: str) -> None:
    if not good:
        raise RequestError(f"fit.{key}={value!r}: must be {allowed}")
