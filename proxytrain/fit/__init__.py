"""Laws of loss: tables in; laws, predictions with intervals, and refusals out. Knows nothing of training.

Imports numpy, scipy and pandas when asked for something, and never torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxytrain.fit.core.options import FitConfig
    from proxytrain.fit.curves.curve import Curve
    from proxytrain.fit.curves.fit import fit_curves
    from proxytrain.fit.curves.laws import CURVE_LAWS
    from proxytrain.fit.curves.result import CurveFit, CurvePrediction
    from proxytrain.fit.losses.allocation import Allocation
    from proxytrain.fit.losses.fit import fit_losses
    from proxytrain.fit.losses.laws import LAWS, Law, Term
    from proxytrain.fit.losses.result import Fit, Prediction
    from proxytrain.fit.optimum.fit import fit_optimum
    from proxytrain.fit.optimum.result import Optimum, OptimumFit
    from proxytrain.fit.saving import load_fit

_HOME = {
    "CURVE_LAWS": "curves.laws",
    "LAWS": "losses.laws",
    "Allocation": "losses.allocation",
    "Curve": "curves.curve",
    "CurveFit": "curves.result",
    "CurvePrediction": "curves.result",
    "Fit": "losses.result",
    "FitConfig": "core.options",
    "Law": "losses.laws",
    "Optimum": "optimum.result",
    "OptimumFit": "optimum.result",
    "Prediction": "losses.result",
    "Term": "losses.laws",
    "fit_curves": "curves.fit",
    "fit_losses": "losses.fit",
    "fit_optimum": "optimum.fit",
    "load_fit": "saving",
}

__all__ = [
    "CURVE_LAWS",
    "LAWS",
    "Allocation",
    "Curve",
    "CurveFit",
    "CurvePrediction",
    "Fit",
    "FitConfig",
    "Law",
    "Optimum",
    "OptimumFit",
    "Prediction",
    "Term",
    "fit_curves",
    "fit_losses",
    "fit_optimum",
    "load_fit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
