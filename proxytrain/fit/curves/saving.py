"""A fit of curves as JSON that people read, and back to a fit whose predictions are the same to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from proxytrain.fit.core.document import CURVES_FORMAT
from proxytrain.fit.curves.estimate import Estimate
from proxytrain.fit.curves.laws import get_curve_law
from proxytrain.fit.curves.ratio import Ratio
from proxytrain.fit.curves.result import Covered, CurveFit, HeldOutCurve


def to_json(fit: CurveFit) -> dict[str, Any]:
    """Return the fit as plain values."""
    return {
        "format": CURVES_FORMAT,
        "law": fit.law,
        "predicts": fit.predicts,
        "params": fit.params,
        "stderr": fit.stderr,
        "not_identified": fit.not_identified,
        "laws": [_member(m, w) for m, w in zip(fit.members, fit.weights)],
        "covered": asdict(fit.covered),
        "backtest": [asdict(h) for h in fit.backtest],
        "ratio": asdict(fit.ratio) if fit.ratio else None,
        "warnings": fit.warnings,
        "data": fit.data,
        "level": fit.level,
        "allow_extrapolation": fit.allow_extrapolation,
        "versions": fit.versions,
    }


def from_json(raw: Mapping[str, Any]) -> CurveFit:
    """Return the fit that `to_json` wrote.

    Raises
    ------
    KeyError, TypeError, AttributeError, ValueError
        The document is not such a fit.
    """
    covered, ratio = raw["covered"], raw["ratio"]
    if not 0 <= float(raw["data"].get("unsure", 0.0)) < 1:
        raise ValueError("data.unsure is no share")
    return CurveFit(
        raw["law"],
        tuple(_member_from(m) for m in raw["laws"]),
        tuple(float(m["weight"]) for m in raw["laws"]),
        Covered(**{**covered, "params": tuple(covered["params"]), "peaks": tuple(covered["peaks"])}),
        tuple(HeldOutCurve(**h) for h in raw["backtest"]),
        Ratio(**{**ratio, "covariance": tuple(tuple(r) for r in ratio["covariance"])}) if ratio else None,
        list(raw["warnings"]),
        raw["data"],
        raw["versions"],
        raw["level"],
        raw["allow_extrapolation"],
    )


def _member(m: Estimate, weight: float) -> dict[str, Any]:
    return {
        "law": m.law.name,
        "formula": m.law.formula,
        "source": m.law.source,
        "weight": weight,
        "theta": dict(zip(m.names, m.theta.tolist())),
        "covariance": m.covariance.tolist(),
        "objective": m.objective,
        "noise": m.noise,
        "together": m.together,
        "luck": m.luck,
        "prior_share": m.prior_share,
        "at_bound": list(m.at_bound),
        "reference": m.reference,
        "progress": m.progress,
    }


def _member_from(raw: dict[str, Any]) -> Estimate:
    names = tuple(raw["theta"])
    return Estimate(
        get_curve_law(raw["law"]),
        names,
        np.array([raw["theta"][n] for n in names], dtype=float),
        np.array(raw["covariance"], dtype=float).reshape(len(names), len(names)),
        raw["objective"],
        raw["noise"],
        raw["together"],
        raw["luck"],
        raw["prior_share"],
        tuple(raw["at_bound"]),
        raw["reference"],
        raw["progress"],
    )
