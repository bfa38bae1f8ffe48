"""A fit of final losses as JSON that people read, and back to a fit whose predictions are the same to the last bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import RequestError
from proxytrain.fit.core.document import LOSSES_FORMAT
from proxytrain.fit.core.noise import Noise
from proxytrain.fit.core.options import FitConfig
from proxytrain.fit.losses.bound import Bound
from proxytrain.fit.losses.laws import LAWS
from proxytrain.fit.losses.predictor import HeldOutRun, Member, Predictor, Range
from proxytrain.fit.losses.result import Fit, Prediction, not_identified


def from_json(raw: Mapping[str, Any]) -> Fit:
    """Return the fit that `to_json` wrote.

    Raises
    ------
    KeyError, TypeError, AttributeError, ValueError
        The document is not such a fit.
    """
    members = tuple(_member_from(m) for m in raw["laws"])
    evidence = tuple(HeldOutRun(**{f.name: row[f.name] for f in fields(HeldOutRun)}) for row in raw["backtest"])
    predictor = Predictor(
        members, tuple(m["weight"] for m in raw["laws"]), Range(**raw["range"]), raw["data"]["fitted"], evidence
    )
    prediction = None if raw["prediction"] is None else Prediction(**raw["prediction"])
    config = FitConfig(**raw["config"])
    return Fit(raw["law"], predictor, config, raw["runs"], raw["data"], raw["warnings"], raw["versions"], prediction)


def to_json(fit: Fit) -> dict[str, Any]:
    """Return the fit as plain values."""
    config = asdict(fit.config)
    config["columns"] = dict(fit.config.columns)
    return {
        "format": LOSSES_FORMAT,
        "law": fit.law,
        "main_law": fit.main.bound.law.name,  # whose parameters come first; all laws follow under "laws"
        "params": fit.params,
        "stderr": fit.stderr,
        "intervals": {"level": fit.config.level, **{k: list(v) for k, v in fit.intervals.items()}},
        "correlations": _correlations(fit.main.bound.names, fit.correlations),
        "not_identified": fit.not_identified,
        "objective": fit.objective,
        "convergence": fit.convergence,
        "allocation": {k: v if isinstance(v, str) else asdict(v) for k, v in fit.allocation.items()},
        "prediction": None if fit.prediction is None else asdict(fit.prediction),
        "warnings": fit.warnings,
        "data": fit.data,
        "config": config,
        "versions": fit.versions,
        "range": asdict(fit.predictor.range),
        "backtest": fit.backtest,
        "runs": fit.runs,
        "laws": [_member_json(m, w) for m, w in zip(fit.members, fit.predictor.weights)],
    }


def _correlations(names: Sequence[str], values: Array) -> dict[str, dict[str, float]]:
    """Each pair of parameters once."""
    return {
        name: {other: round(float(values[i, j]), 4) for j, other in enumerate(names[:i])}
        for i, name in enumerate(names)
        if i
    }


def _member_json(member: Member, weight: float) -> dict[str, Any]:
    bound = member.bound
    return {
        "name": bound.law.name,
        "formula": bound.law.formula,
        "source": bound.law.source,
        "meaning": dict(bound.law.meaning),
        "weight": weight,
        "params": dict(zip(bound.names, bound.natural(member.theta).tolist())),
        "stderr": dict(zip(bound.names, bound.natural(member.draws).std(0, ddof=1).tolist())),
        "not_identified": not_identified(member),
        "objective": member.objective,
        "delta": member.delta,
        "convergence": member.convergence,
        "noise": asdict(member.noise),
        "levels": list(bound.levels),
        "offsets": list(bound.offsets),
        "group": bound.group,
        "centre": dict(bound.centre),
        "scale": bound.scale,
        "theta": member.theta.tolist(),
        "draws": member.draws.tolist(),
    }


def _member_from(raw: Mapping[str, Any]) -> Member:
    if raw["name"] not in LAWS:
        raise RequestError(f"law {raw['name']!r} is not known to this version")
    bound = Bound(
        LAWS[raw["name"]], tuple(raw["levels"]), raw["centre"], raw["scale"], tuple(raw["offsets"]), raw["group"]
    )
    return Member(
        bound,
        np.array(raw["theta"]),
        np.array(raw["draws"]),
        raw["objective"],
        raw["delta"],
        raw["convergence"],
        Noise(**raw["noise"]),
    )


def render(value: Any, indent: int = 0) -> str:
    """Return JSON with a line for each entry, and lists of plain values on one line."""
    pad = "  " * (indent + 1)
    if isinstance(value, Mapping):
        if not value or (indent >= 2 and not any(isinstance(v, (Mapping, list, tuple)) for v in value.values())):
            return json.dumps(value)
        body = ",\n".join(f"{pad}{json.dumps(str(k))}: {render(v, indent + 1)}" for k, v in value.items())
        return "{\n" + body + "\n" + "  " * indent + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not any(isinstance(v, (Mapping, list, tuple)) for v in value):
            return json.dumps(list(value))
        return "[\n" + ",\n".join(pad + render(v, indent + 1) for v in value) + "\n" + "  " * indent + "]"
    return json.dumps(value)
