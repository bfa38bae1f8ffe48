"""proxytrain: predict the loss of a large language model from a grid of tiny ones, with an honest interval.

The public names are imported when they are first used, so that `import proxytrain` costs nothing and never torch.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing's own costs a quarter of Python's start
if TYPE_CHECKING:
    from proxytrain.errors import Refusal, RequestError
    from proxytrain.fit import (
        Curve,
        CurveFit,
        Fit,
        OptimumFit,
        Prediction,
        compare,
        fit_critical_batch,
        fit_curves,
        fit_logits,
        fit_losses,
        fit_optimum,
        load_fit,
        loss_spikes,
        lr_sensitivity,
        rank,
    )
    from proxytrain.store import RunCurve, Store
    from proxytrain.train.export import load_model

_ROOMS = {
    "Curve": "fit",
    "CurveFit": "fit",
    "Fit": "fit",
    "OptimumFit": "fit",
    "Prediction": "fit",
    "Refusal": "errors",
    "RequestError": "errors",
    "RunCurve": "store",
    "Store": "store",
    "compare": "fit",
    "fit_critical_batch": "fit",
    "fit_curves": "fit",
    "fit_logits": "fit",
    "fit_losses": "fit",
    "fit_optimum": "fit",
    "load_fit": "fit",
    "load_model": "train.export",
    "loss_spikes": "fit",
    "lr_sensitivity": "fit",
    "rank": "fit",
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
    if name not in _ROOMS:
        raise AttributeError(f"module 'proxytrain' has no attribute {name!r}")
    return getattr(import_module(f"proxytrain.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
