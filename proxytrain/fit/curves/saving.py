"""A fit of curves as JSON that people read, and back to a fit whose predictions are the same to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.files.documents import Document
from proxytrain.fit.core.document import CURVES_FORMAT, as_document
from proxytrain.fit.curves.data import CurveData
from proxytrain.fit.curves.estimate import Estimate
from proxytrain.fit.curves.laws import get_curve_law
from proxytrain.fit.curves.ratio import Ratio
from proxytrain.fit.curves.result import Covered, CurveFit, HeldOutCurve


class _CurveLawDocument(Document, frozen=True, kw_only=True):
    """One law of the fit."""

    law: str
    formula: str
    source: str
    weight: float
    theta: dict[str, float]
    covariance: Array
    objective: float
    noise: float
    together: float
    luck: float
    prior_share: dict[str, float]
    at_bound: tuple[str, ...]
    reference: float
    progress: float


class CurvesDocument(Document, frozen=True, kw_only=True):
    """`curves.json`: the main law's numbers first, then all that predictions are made from."""

    format: str
    law: str
    predicts: str
    params: dict[str, float]
    stderr: dict[str, float]
    not_identified: dict[str, Any]
    laws: list[_CurveLawDocument]
    covered: Covered
    backtest: tuple[HeldOutCurve, ...]
    ratio: Ratio | None
    warnings: list[str]
    data: CurveData
    level: float
    allow_extrapolation: bool
    versions: dict[str, str]


def document_of(fit: CurveFit) -> CurvesDocument:
    """Return the fit as a document."""
    return CurvesDocument(
        format=CURVES_FORMAT,
        law=fit.law,
        predicts=fit.predicts,
        params=fit.params,
        stderr=fit.stderr,
        not_identified=fit.not_identified,
        laws=[_member(m, w) for m, w in zip(fit.members, fit.weights)],
        covered=fit.covered,
        backtest=fit.backtest,
        ratio=fit.ratio,
        warnings=fit.warnings,
        data=fit.data,
        level=fit.level,
        allow_extrapolation=fit.allow_extrapolation,
        versions=fit.versions,
    )


def from_tree(tree: dict[str, Any]) -> CurveFit:
    """Return the fit that `document_of` describes.

    Raises
    ------
    ValueError
        The content is something else.
    """
    raw = as_document(tree, CurvesDocument)
    if not raw.laws:
        raise ValueError("no law")
    return CurveFit(
        law=raw.law,
        members=tuple(_member_from(m) for m in raw.laws),
        weights=tuple(m.weight for m in raw.laws),
        covered=raw.covered,
        backtest=raw.backtest,
        ratio=raw.ratio,
        warnings=raw.warnings,
        data=raw.data,
        versions=raw.versions,
        level=raw.level,
        allow_extrapolation=raw.allow_extrapolation,
    )


def try_out(fit: CurveFit) -> None:
    """Predict a short run at a constant rate."""
    fit.predict(np.full(min(fit.covered.updates, 100), fit.covered.peak), params=max(fit.covered.params, default=None))


def _member(m: Estimate, weight: float) -> _CurveLawDocument:
    return _CurveLawDocument(
        law=m.law.name,
        formula=m.law.formula,
        source=m.law.source,
        weight=weight,
        theta=dict(zip(m.names, m.theta.tolist())),
        covariance=m.covariance,
        objective=m.objective,
        noise=m.noise,
        together=m.together,
        luck=m.luck,
        prior_share=m.prior_share,
        at_bound=m.at_bound,
        reference=m.reference,
        progress=m.progress,
    )


def _member_from(raw: _CurveLawDocument) -> Estimate:
    names = tuple(raw.theta)
    return Estimate(
        law=get_curve_law(raw.law),
        names=names,
        theta=np.array(list(raw.theta.values())),
        covariance=raw.covariance.reshape(len(names), len(names)),
        objective=raw.objective,
        noise=raw.noise,
        together=raw.together,
        luck=raw.luck,
        prior_share=raw.prior_share,
        at_bound=raw.at_bound,
        reference=raw.reference,
        progress=raw.progress,
    )
