"""Final losses and loss curves as one answer."""

from __future__ import annotations

import numpy as np
import pytest

from proxytrain.fit.curves.result import CurvePrediction
from proxytrain.fit.losses.result import Prediction
from proxytrain.fit.together import ALIKE, together


def both(ends: tuple[float, float, float], curves: tuple[float, float, float], notes: tuple[str, str] = ("", "")):
    """Loss, low and high of each."""
    loss, low, high = (np.array([9.9, x]) for x in curves)  # after the first update and the last
    answer = together(Prediction(*ends, 0.9, 6.0, notes[0]), CurvePrediction(loss, low, high, 0.9, notes[1]))
    return answer, float(np.log(answer.high / answer.low)) / 2


def around(loss: float, half: float) -> tuple[float, float, float]:
    return loss, loss * float(np.exp(-half)), loss * float(np.exp(half))


def test_two_that_agree_are_one():
    answer, half = both(around(1.3, 0.03), around(1.3, 0.03))
    assert answer.loss == pytest.approx(1.3)
    assert half == pytest.approx(0.03 * np.sqrt((1 + ALIKE) / 2))
    assert (answer.level, answer.gap, answer.note) == (0.9, 6.0, "")


@pytest.mark.parametrize("times", [1, 2, 5])
def test_each_counts_by_its_precision(times):
    answer, half = both(around(1.30, 0.02), around(1.32, 0.02 * times))
    share = 1 / (1 + times**2)
    assert np.log(answer.loss / 1.30) == pytest.approx(share * np.log(1.32 / 1.30))
    parts = answer.parts
    assert parts["loss curves"]["weight"] == pytest.approx(share)
    assert sum(p["weight"] for p in parts.values()) == pytest.approx(1)
    assert [parts["final losses"][k] for k in ("loss", "low", "high")] == pytest.approx(around(1.30, 0.02))
    alone = 0.02 * (1 - share), 0.02 * times * share
    assert half == pytest.approx(np.sqrt(alone[0] ** 2 + alone[1] ** 2 + 2 * ALIKE * alone[0] * alone[1]))


def test_the_interval_is_stretched_where_they_lie_farther_apart_than_they_should():
    widths = [both(around(1.3, 0.03), around(1.3 * float(np.exp(apart)), 0.03))[1] for apart in (0, 0.02, 0.1, 0.5)]
    expected = 0.03 * np.sqrt(2 - 2 * ALIKE)
    assert widths == pytest.approx([widths[0] * max(1, apart / expected) for apart in (0, 0.02, 0.1, 0.5)])
    answer, _ = both(around(1.3, 0.01), around(1.5, 0.01))
    assert answer.low < 1.3 < 1.5 < answer.high  # neither rules the other out


def test_an_interval_that_is_lopsided_stays_so():
    answer, _ = both((1.3, 1.29, 1.4), (1.3, 1.29, 1.4))
    assert np.log(answer.high / 1.3) / np.log(1.3 / answer.low) == pytest.approx(np.log(1.4 / 1.3) / np.log(1.3 / 1.29))


def test_the_label_of_final_losses_is_kept():
    assert both(around(1.3, 0.1), around(1.3, 0.1), ("EXTRAPOLATION", "far"))[0].note == "EXTRAPOLATION"
