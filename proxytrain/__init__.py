"""proxytrain: predict the loss of a large language model from a grid of tiny ones, with an honest interval.

The public names are imported when they are first used, so that `import proxytrain` costs nothing and never torch.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing's own costs a quarter of Python's start
if TYPE_CHECKING:
    from proxytrain.analysis.collapse import collapse
    from proxytrain.analysis.critical_batch import fit_critical_batch
    from proxytrain.analysis.crossover import compare
    from proxytrain.analysis.ranking import rank
    from proxytrain.analysis.stability import fit_logits, loss_spikes, lr_sensitivity
    from proxytrain.errors import Refusal, RequestError
    from proxytrain.fit import (
        Curve,
        CurveFit,
        Fit,
        OptimumFit,
        Prediction,
        fit_curves,
        fit_losses,
        fit_optimum,
        load_fit,
    )
    from proxytrain.store.curves import RunCurve
    from proxytrain.store.store import Store
    from proxytrain.train.export import load_model

_HOME = {
    "Curve": "fit",
    "CurveFit": "fit",
    "Fit": "fit",
    "OptimumFit": "fit",
    "Prediction": "fit",
    "Refusal": "errors",
    "RequestError": "errors",
    "RunCurve": "store.curves",
    "Store": "store.store",
    "collapse": "analysis.collapse",
    "compare": "analysis.crossover",
    "fit_critical_batch": "analysis.critical_batch",
    "fit_curves": "fit",
    "fit_logits": "analysis.stability",
    "fit_losses": "fit",
    "fit_optimum": "fit",
    "load_fit": "fit",
    "load_model": "train.export",
    "loss_spikes": "analysis.stability",
    "lr_sensitivity": "analysis.stability",
    "rank": "analysis.ranking",
}
__all__ = [
    "Curve",
    "CurveFit",
    "Fit",
    "OptimumFit",
    "Prediction",
    "Refusal",
    "RequestError",
    "RunCurve",
    "Store",
    "collapse",
    "compare",
    "fit_critical_batch",
    "fit_curves",
    "fit_logits",
    "fit_losses",
    "fit_optimum",
    "load_fit",
    "load_model",
    "loss_spikes",
    "lr_sensitivity",
    "rank",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'proxytrain' has no attribute {name!r}")
    return getattr(import_module(f"proxytrain.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
