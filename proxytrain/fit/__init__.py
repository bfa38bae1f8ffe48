"""Laws of loss: tables in; laws, predictions with intervals, and refusals out. Knows nothing of training.

Imports numpy, scipy and pandas when asked for something, and never torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxytrain.fit.allocation import Allocation
    from proxytrain.fit.batch import CriticalBatch, fit_critical_batch
    from proxytrain.fit.collapse import Collapse
    from proxytrain.fit.crossover import Comparison, compare
    from proxytrain.fit.curves.curve import Curve
    from proxytrain.fit.curves.fit import fit_curves
    from proxytrain.fit.curves.laws import CURVE_LAWS
    from proxytrain.fit.curves.result import CurveFit, CurvePrediction
    from proxytrain.fit.laws import LAWS, Law, Term
    from proxytrain.fit.losses import fit_losses
    from proxytrain.fit.optimum.fit import fit_optimum
    from proxytrain.fit.optimum.result import Optimum, OptimumFit
    from proxytrain.fit.options import FitConfig
    from proxytrain.fit.ranking import Ranking, rank
    from proxytrain.fit.result import Fit, Prediction
    from proxytrain.fit.saving import load_fit
    from proxytrain.fit.stability import Crossing, LogitGrowth, Sensitivity, fit_logits, loss_spikes, lr_sensitivity

_HOME = {
    "CURVE_LAWS": "curves.laws",
    "LAWS": "laws",
    "Allocation": "allocation",
    "Collapse": "collapse",
    "Comparison": "crossover",
    "Crossing": "stability",
    "CriticalBatch": "batch",
    "Curve": "curves.curve",
    "CurveFit": "curves.result",
    "CurvePrediction": "curves.result",
    "Fit": "result",
    "FitConfig": "options",
    "Law": "laws",
    "LogitGrowth": "stability",
    "Optimum": "optimum.result",
    "OptimumFit": "optimum.result",
    "Prediction": "result",
    "Ranking": "ranking",
    "Sensitivity": "stability",
    "Term": "laws",
    "compare": "crossover",
    "fit_critical_batch": "batch",
    "fit_curves": "curves.fit",
    "fit_logits": "stability",
    "fit_losses": "losses",
    "fit_optimum": "optimum.fit",
    "load_fit": "saving",
    "loss_spikes": "stability",
    "lr_sensitivity": "stability",
    "rank": "ranking",
}

__all__ = [
    "CURVE_LAWS",
    "LAWS",
    "Allocation",
    "Collapse",
    "Comparison",
    "CriticalBatch",
    "Crossing",
    "Curve",
    "CurveFit",
    "CurvePrediction",
    "Fit",
    "FitConfig",
    "Law",
    "LogitGrowth",
    "Optimum",
    "OptimumFit",
    "Prediction",
    "Ranking",
    "Sensitivity",
    "Term",
    "compare",
    "fit_critical_batch",
    "fit_curves",
    "fit_logits",
    "fit_losses",
    "fit_optimum",
    "load_fit",
    "loss_spikes",
    "lr_sensitivity",
    "rank",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
