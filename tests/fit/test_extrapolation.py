"""One limit of extrapolation and one refusal, for final losses, curves and optima."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from proxytrain import load_fit
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit import FitConfig, fit_curves, fit_optimum
from proxytrain.fit.core.extrapolation import EXTRAPOLATION_LIMIT

SAVED = Path(__file__).parents[1] / "data" / "fits_v2"


def updates(count: float) -> np.ndarray:
    """Return a constant learning rate of so many updates."""
    return np.full(round(count), 1e-3)


def ask(kind: str, gap: float) -> None:
    """Ask a saved fit for a target at a gap."""
    fit = load_fit(SAVED / f"{kind}.json")
    if kind == "losses":
        fit.predict(flops=fit.predictor.range.compute * gap, tokens=fit.predictor.range.tokens)
    elif kind == "curves":
        fit.predict(updates(fit.covered.updates * gap))
    else:
        fit.predict(params=fit.about["params"].max() * gap, tokens=fit.about["tokens"].max())


def backtested(kind: str) -> float:
    """Return the largest gap of a saved backtest, as the document has it."""
    rows = json.loads((SAVED / f"{kind}.json").read_text())["backtest"]
    far = {
        "losses": lambda r: np.exp(r["reach"]),
        "curves": lambda r: np.exp(r["longer"]),
        "optimum": lambda r: r["gap"],
    }
    return float(max(map(far[kind], rows)))


KINDS = {"losses": "the runs", "curves": "the curves in length and size", "optimum": "the largest grid"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_within_three_times_the_backtested_log_gap_is_predicted(kind):
    ask(kind, 0.98 * backtested(kind) ** EXTRAPOLATION_LIMIT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_farther_than_that_is_refused_in_the_same_words(kind):
    tested = backtested(kind)
    most = tested**EXTRAPOLATION_LIMIT
    with pytest.raises(Refusal) as refused:
        ask(kind, 1.02 * most)
    middle = (
        f"x beyond {KINDS[kind]}, but the backtest reached a gap of {tested:.3g}x: up to {most:.3g}x is predicted; "
    )
    assert middle in str(refused.value)
    assert str(refused.value).endswith("allow_extrapolation=true (fit.allow_extrapolation=true on the command line)")


@pytest.mark.parametrize("allow", ["false", "true", 0, 1, None])
@pytest.mark.parametrize(
    "ask_for",
    [
        lambda allow: FitConfig(allow_extrapolation=allow),
        lambda allow: fit_curves([], allow_extrapolation=allow),
        lambda allow: fit_optimum({}, allow_extrapolation=allow),
    ],
    ids=["losses", "curves", "optimum"],
)
def test_a_permission_that_is_neither_true_nor_false_is_refused(ask_for, allow):
    with pytest.raises(RequestError, match=rf"allow_extrapolation={allow!r}: must be true or false$"):
        ask_for(allow)


@pytest.mark.parametrize(("size", "length"), [(1e-3, 1e3), (1e3, 1e-3)], ids=["longer", "larger"])
def test_an_optimum_at_the_compute_of_the_cells_but_far_beyond_one_side_is_refused(size, length):
    fit = load_fit(SAVED / "optimum.json")
    params, tokens = (fit.about[c].max() for c in ("params", "tokens"))
    with pytest.raises(Refusal, match=r"is a gap of 1e\+03x beyond the largest grid"):
        fit.predict(params=params * size, tokens=tokens * length)
