"""Reads a saved fit of any kind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from proxytrain.errors import RequestError
from proxytrain.fit.core.document import CURVE_FORMAT, FORMAT, OPTIMUM_FORMAT, checksum

if TYPE_CHECKING:
    from proxytrain.fit.curves.result import CurveFit
    from proxytrain.fit.losses.result import Fit
    from proxytrain.fit.optimum.result import OptimumFit


def load_fit(path: str | os.PathLike[str]) -> Fit | CurveFit | OptimumFit:
    """Read a fit that `Fit.save`, `CurveFit.save` or `OptimumFit.save` wrote; it predicts the same to the last bit.

    Raises a RequestError where the file is missing or is not such a fit.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(f"{path}: no such file")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        written = raw.pop("checksum", None)
        if written is not None and written != checksum(raw):
            raise RequestError(f"{path}: not as it was written (edited by hand?); fit again")
        if raw.get("format") == CURVE_FORMAT:
            from proxytrain.fit.curves.saving import from_json as curves

            return curves(raw, path)
        if raw.get("format") == OPTIMUM_FORMAT:
            from proxytrain.fit.optimum.result import OptimumFit

            return OptimumFit.of_json(raw)
        if raw.get("format") != FORMAT:
            raise RequestError(f"{path}: format is {raw.get('format')!r}, must be {FORMAT!r}")
        from proxytrain.fit.losses.saving import from_json as losses

        return losses(raw)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{path}: is not a fit that was saved by proxytrain ({error})") from None
