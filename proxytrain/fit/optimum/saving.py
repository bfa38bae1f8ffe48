"""A fit of optima as JSON that people read, and back to a fit whose predictions are the same to the last bit."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from proxytrain.arrays import Array
from proxytrain.files.documents import Document
from proxytrain.fit.core.document import OPTIMUM_FORMAT, as_document
from proxytrain.fit.optimum.result import HeldOutCell, OptimumFit, OptimumLaw

FIELDS = [f.name for f in fields(OptimumFit)]


class OptimumDocument(Document, frozen=True, kw_only=True):
    """`optimum.json`: the laws, then the cells that they were fitted to."""

    format: str
    laws: dict[str, OptimumLaw]
    about: dict[str, Array]
    optimum: dict[str, Array]
    curvature: Array
    noise: float
    backtest: tuple[HeldOutCell, ...]
    level: float
    allow_extrapolation: bool
    warnings: list[str]
    runs: int
    source: str


def document_of(fit: OptimumFit) -> OptimumDocument:
    """Return the fit as a document."""
    return OptimumDocument(format=OPTIMUM_FORMAT, **{name: getattr(fit, name) for name in FIELDS})


def from_tree(tree: dict[str, Any]) -> OptimumFit:
    """Return the fit that `document_of` describes.

    Raises
    ------
    ValueError
        The content is something else.
    """
    raw = as_document(tree, OptimumDocument)
    return OptimumFit(**{name: getattr(raw, name) for name in FIELDS})


def try_out(fit: OptimumFit) -> None:
    """Predict the optimum of the largest cell."""
    largest = {axis: float(values.max()) for axis, values in fit.about.items()}
    fit.predict(**{"params": 1e6, "tokens": 1e6, **largest})
