"""A fit of optima as JSON that people read, and back to a fit whose predictions are the same to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from proxytrain.fit.core.document import OPTIMUM_FORMAT
from proxytrain.fit.optimum.result import HeldOutCell, OptimumFit, OptimumLaw


def to_json(fit: OptimumFit) -> dict[str, Any]:
    """Return the fit as plain values."""
    return {"format": OPTIMUM_FORMAT, **{name: _plain(value) for name, value in vars(fit).items()}}


def from_json(raw: Mapping[str, Any]) -> OptimumFit:
    """Return the fit that `to_json` wrote.

    Raises
    ------
    KeyError, TypeError, AttributeError, ValueError
        The document is not such a fit.
    """
    return OptimumFit(
        laws={name: _law(law) for name, law in raw["laws"].items()},
        about={c: np.array(v) for c, v in raw["about"].items()},
        optimum={c: np.array(v) for c, v in raw["optimum"].items()},
        curvature=np.array(raw["curvature"]),
        backtest=tuple(HeldOutCell(**{**h, "off": tuple(h["off"])}) for h in raw["backtest"]),
        **{k: raw[k] for k in ("noise", "level", "allow_extrapolation", "warnings", "runs", "source")},
    )


def _law(raw: Mapping[str, Any]) -> OptimumLaw:
    return OptimumLaw(
        coefficients=tuple(raw["coefficients"]),
        covariance=np.array(raw["covariance"]),
        shape=np.array(raw["shape"]),
        **{k: raw[k] for k in ("centre", "scatter", "freedom")},
    )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (OptimumLaw, HeldOutCell)):
        return _plain(vars(value))
    return value
