"""How laws are weighed: by hold-out errors alone."""

import numpy as np
import pytest

from proxytrain.fit.core.combine import combine


def outcome(good, bad, cells=10):
    """One cut with two laws: constant errors on so many cells, all of which may be looked at."""
    errors = {"good": np.full(cells, good), "bad": np.full(cells, bad)}
    return errors, np.arange(cells), np.ones(cells, dtype=bool)


def test_few_cells_make_an_equal_mixture():
    assert combine(["good", "bad"], [outcome(0.001, 0.1, cells=7)]) == (0.5, 0.5)


def test_the_better_law_counts_more_but_never_alone():
    good, bad = combine(["good", "bad"], [outcome(0.01, 0.02)])
    # scores .4 and 1.6 of the mean square; weights 1/(score + best)
    assert good / bad == pytest.approx((1.6 + 0.4) / (0.4 + 0.4))


def test_errors_that_may_not_be_looked_at_do_not_count():
    errors, held, allowed = outcome(0.01, 0.02)
    assert combine(["good", "bad"], [(errors, held, ~allowed)]) == (0.5, 0.5)


def test_a_law_is_judged_on_the_cells_that_it_predicts():
    errors, held, allowed = outcome(0.01, 0.02)
    errors["part"] = np.where(np.arange(10) < 3, 0.005, np.nan)
    weights = dict(zip(("good", "bad", "part"), combine(["good", "bad", "part"], [(errors, held, allowed)])))
    assert weights["part"] > weights["good"] > weights["bad"]
