"""A fit of final losses as JSON that people read, and back to a fit whose predictions are the same to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import RequestError
from proxytrain.files.documents import Document
from proxytrain.fit.core.document import LOSSES_FORMAT, as_document
from proxytrain.fit.core.noise import Noise
from proxytrain.fit.core.options import FitConfig
from proxytrain.fit.losses.bound import Bound
from proxytrain.fit.losses.data import FitData
from proxytrain.fit.losses.laws import LAWS
from proxytrain.fit.losses.predictor import HeldOutRun, Member, Predictor, Range
from proxytrain.fit.losses.result import Fit, Prediction, not_identified


class _LossLawDocument(Document, frozen=True, kw_only=True):
    """One law of the fit. What follows `convergence` is what predictions are made from; the rest is for people."""

    name: str
    formula: str
    source: str
    meaning: dict[str, str]
    weight: float
    params: dict[str, float]
    stderr: dict[str, float]
    not_identified: list[str]
    objective: float
    delta: float
    convergence: float
    noise: Noise
    levels: tuple[Any, ...]
    offsets: tuple[str, ...]
    group: str
    centre: dict[str, float]
    scale: float
    theta: Array
    draws: Array


class LossesDocument(Document, frozen=True, kw_only=True):
    """`fit.json`: the main law's numbers first, then all that predictions are made from."""

    format: str
    law: str
    main_law: str
    params: dict[str, float]
    stderr: dict[str, float]
    intervals: dict[str, Any]
    correlations: dict[str, dict[str, float]]
    not_identified: list[str]
    objective: float
    convergence: float
    allocation: dict[str, Any]
    prediction: Prediction | None
    warnings: list[str]
    data: FitData
    config: FitConfig
    versions: dict[str, str]
    range: Range
    backtest: list[dict[str, Any]]
    runs: dict[str, list[Any]]
    laws: list[_LossLawDocument]


def from_tree(tree: dict[str, Any]) -> Fit:
    """Return the fit that `document_of` describes.

    Raises
    ------
    ValueError
        The content is something else.
    """
    raw = as_document(tree, LossesDocument)
    held_out = tuple(as_document(row, HeldOutRun) for row in raw.backtest)
    members, weights = tuple(_member_from(m) for m in raw.laws), tuple(m.weight for m in raw.laws)
    if not members:
        raise ValueError("no law")
    predictor = Predictor(members, weights, raw.range, raw.data.fitted, held_out)
    return Fit(raw.law, predictor, raw.config, raw.runs, raw.data, raw.warnings, raw.versions, raw.prediction)


def document_of(fit: Fit) -> LossesDocument:
    """Return the fit as a document."""
    return LossesDocument(
        format=LOSSES_FORMAT,
        law=fit.law,
        main_law=fit.main.bound.law.name,
        params=fit.params,
        stderr=fit.stderr,
        intervals={"level": fit.config.level, **fit.intervals},
        correlations=_correlations(fit.main.bound.names, fit.correlations),
        not_identified=fit.not_identified,
        objective=fit.objective,
        convergence=fit.convergence,
        allocation=fit.allocation,
        prediction=fit.prediction,
        warnings=fit.warnings,
        data=fit.data,
        config=fit.config,
        versions=fit.versions,
        range=fit.predictor.range,
        backtest=fit.backtest,
        runs=fit.runs,
        laws=[_member(m, w) for m, w in zip(fit.members, fit.predictor.weights)],
    )


def try_out(fit: Fit) -> None:
    """Predict the largest size and length that were fitted."""
    n, d = (np.array([v]) for v in (fit.predictor.range.params, fit.predictor.range.tokens))
    fit.predictor.predict({"params": n, "tokens": d, "flops": 6.0 * n * d, "unique_tokens": d}, fit.config.level)


def _correlations(names: Sequence[str], values: Array) -> dict[str, dict[str, float]]:
    """Return each pair of parameters once."""
    return {
        name: {other: round(float(values[i, j]), 4) for j, other in enumerate(names[:i])}
        for i, name in enumerate(names)
        if i
    }


def _member(member: Member, weight: float) -> _LossLawDocument:
    bound = member.bound
    return _LossLawDocument(
        name=bound.law.name,
        formula=bound.law.formula,
        source=bound.law.source,
        meaning=dict(bound.law.meaning),
        weight=weight,
        params=dict(zip(bound.names, bound.natural(member.theta).tolist())),
        stderr=dict(zip(bound.names, bound.natural(member.draws).std(0, ddof=1).tolist())),
        not_identified=not_identified(member),
        objective=member.objective,
        delta=member.delta,
        convergence=member.convergence,
        noise=member.noise,
        levels=bound.levels,
        offsets=bound.offsets,
        group=bound.group,
        centre=dict(bound.centre),
        scale=bound.scale,
        theta=member.theta,
        draws=member.draws,
    )


def _member_from(raw: _LossLawDocument) -> Member:
    if raw.name not in LAWS:
        raise RequestError(f"law {raw.name!r} is not known to this version")
    bound = Bound(LAWS[raw.name], raw.levels, raw.centre, raw.scale, raw.offsets, raw.group)
    if raw.theta.shape != (len(bound.names),) or raw.draws.shape[1:] != raw.theta.shape:
        raise ValueError(
            f"law {raw.name}: {len(bound.names)} parameters, theta {raw.theta.shape}, draws {raw.draws.shape}"
        )
    return Member(bound, raw.theta, raw.draws, raw.objective, raw.delta, raw.convergence, raw.noise)
