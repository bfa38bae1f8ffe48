"""A level of an interval is a probability, wherever it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from proxytrain import load_fit
from proxytrain.analysis.critical_batch import fit_critical_batch
from proxytrain.analysis.crossover import compare
from proxytrain.analysis.ranking import rank
from proxytrain.analysis.stability import fit_logits, lr_sensitivity
from proxytrain.errors import RequestError
from proxytrain.fit import FitConfig, fit_curves, fit_losses, fit_optimum

SAVED = Path(__file__).parents[1] / "data" / "fits_v2"
ASKS = {
    "FitConfig": lambda level: FitConfig(level=level),
    "fit_losses": lambda level: fit_losses({}, level=level),
    "fit_curves": lambda level: fit_curves([], level=level),
    "fit_optimum": lambda level: fit_optimum({}, level=level),
    "fit_critical_batch": lambda level: fit_critical_batch({}, level=level),
    "rank": lambda level: rank({}, level=level),
    "lr_sensitivity": lambda level: lr_sensitivity([0.001, 0.01, 0.1], [3.0, 2.0, 3.0], 5.0, level=level),
    "fit_logits": lambda level: fit_logits([1e6, 2e6, 4e6, 8e6], [1.0, 2.0, 4.0, 8.0], level=level),
    "compare": lambda level: compare(*[load_fit(SAVED / "losses.json")] * 2, level=level),
    "Fit.predict": lambda level: load_fit(SAVED / "losses.json").predict(1e8, 1e10, level=level),
    "Fit.optimal": lambda level: load_fit(SAVED / "losses.json").optimal(1e18, level=level),
    "CurveFit.predict": lambda level: load_fit(SAVED / "curves.json").predict(np.full(9, 1e-3), level=level),
    "OptimumFit.predict": lambda level: load_fit(SAVED / "optimum.json").predict(16e6, 8e8, level=level),
}


@pytest.mark.parametrize("level", [0.0, 1.0, 90.0, 1, float("nan"), "0.9", True], ids=repr)
@pytest.mark.parametrize("ask", ASKS)
def test_a_level_that_is_no_probability_is_refused(ask, level):
    with pytest.raises(RequestError, match=rf"level={level!r}: must be a number between 0 and 1$"):
        ASKS[ask](level)
