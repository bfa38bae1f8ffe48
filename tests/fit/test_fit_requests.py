"""Values that cannot be are refused by saved fits, in one line that names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from proxytrain import load_fit
from proxytrain.errors import RequestError

SAVED = Path(__file__).parents[1] / "data" / "fits_v2"


@pytest.mark.parametrize("wrong", [True, 16, 0, -1e6, float("nan"), float("inf"), "16e6", np.array([16e6])], ids=repr)
@pytest.mark.parametrize("name", ["params", "tokens"])
def test_a_size_or_length_that_cannot_be_has_no_optimum(name, wrong):
    with pytest.raises(RequestError, match=f"^{name}=.*: must be .*, at least 1000$"):
        load_fit(SAVED / "optimum.json").predict(**{"params": 16e6, "tokens": 8e8, name: wrong})


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, int])
def test_a_size_of_any_numeric_type_has_the_same_optimum(kind):
    fit = load_fit(SAVED / "optimum.json")
    assert fit.predict(kind(16_000_000), kind(800_000_000)) == fit.predict(16e6, 8e8)


def test_learning_rates_with_an_imaginary_part_are_refused():
    with pytest.raises(RequestError, match=r"^lr: must be numbers"):
        load_fit(SAVED / "curves.json").predict(np.full(100, 1e-3 + 1j))


@pytest.mark.parametrize("updates", [3000.5, True, "3000", float("nan")], ids=repr)
def test_the_best_decay_of_updates_that_are_no_whole_number_is_refused(updates):
    with pytest.raises(RequestError, match=f"^updates={updates!r}: must be a whole number of updates$"):
        load_fit(SAVED / "curves.json").best_decay(updates)
