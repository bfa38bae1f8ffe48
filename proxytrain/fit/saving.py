"""Reads a saved fit of any kind."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.core.document import CURVES_FORMAT, LOSSES_FORMAT, OPTIMUM_FORMAT, read_fit

if TYPE_CHECKING:
    from proxytrain.fit.core.result import FitResult
    from proxytrain.fit.curves.result import CurveFit
    from proxytrain.fit.losses.result import Fit
    from proxytrain.fit.optimum.result import OptimumFit

    def every_kind_is(fit: Fit | CurveFit | OptimumFit) -> FitResult:  # mypy holds each kind to the protocol
        return fit


PACKAGES = {LOSSES_FORMAT: "losses", CURVES_FORMAT: "curves", OPTIMUM_FORMAT: "optimum"}  # whose `saving` reads it


def load_fit(path: str | os.PathLike[str]) -> Fit | CurveFit | OptimumFit:
    """Read a fit that `Fit.save`, `CurveFit.save` or `OptimumFit.save` wrote; it predicts the same to the last bit.

    Raises a RequestError where the file is missing or is not such a fit.
    """
    raw = read_fit(path)
    format_ = raw.get("format")
    if not (isinstance(format_, str) and format_ in PACKAGES):
        raise RequestError(f"{path}: format is {format_!r}, must be {', '.join(map(repr, PACKAGES))}")
    kind = import_module(f"proxytrain.fit.{PACKAGES[format_]}.saving")
    try:
        fit: Fit | CurveFit | OptimumFit = kind.from_tree(raw)
        with suppress(Refusal):  # a whole fit may still refuse
            kind.try_out(fit)  # parts that are of the right types, but do not belong together
    except RequestError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, ArithmeticError) as error:
        raise RequestError(f"{path}: not a whole fit ({error}). Fit again.") from None
    return fit
