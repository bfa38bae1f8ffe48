"""What every kind of fit can do, so that a command, a report or a new kind needs to know no more."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class FitResult(Protocol):
    """A fit of any kind: `Fit` of final losses, `CurveFit`, `OptimumFit`. `load_fit` reads what `save` wrote."""

    @property
    def backtest(self) -> Sequence[Any]:
        """Return what was held out and predicted from the rest."""

    @property
    def warnings(self) -> list[str]:
        """Return what a person must know of the data and the estimate."""

    @property
    def predict(self) -> Callable[..., Any]:
        """Return the method that predicts one new run; what it is asked by depends on the kind."""

    def summary(self) -> list[str]:
        """Return short lines for a person."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit as JSON: under a temporary name, synced, then renamed."""
