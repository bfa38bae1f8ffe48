"""Held-out errors scale the spread: each cut counts alike, and one miss counts only so much."""

from __future__ import annotations

import pytest

from proxytrain.fit.core.holdout import calibration


@pytest.mark.parametrize(
    ("errors", "square"),
    [
        ([], 1.0),
        ([("a", 1.5)], (2 + 1.5**2) / 3),
        ([("a", 1.5), ("a", 0.5), ("b", 1.0)], (2 + (1.5**2 + 0.5**2) / 2 + 1) / 4),
        ([("a", -1.5)], (2 + 1.5**2) / 3),
        ([("a", 1e9)], (2 + 25) / 3),
        ([("a", 0.0)] * 9, 2 / 3),
    ],
)
def test_a_cut_s_mean_square_counts_once_beside_two_cuts_of_the_spread_as_it_is(errors, square):
    assert calibration(errors, widest=9.0) == pytest.approx(square**0.5)


def test_the_factor_stays_within_its_bounds():
    assert calibration([(str(i), 5.0) for i in range(50)], widest=2.0) == 2.0
    assert calibration([(str(i), 0.0) for i in range(50)], widest=2.0, tightest=0.8) == 0.8
