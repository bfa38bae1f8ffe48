"""Normalised loss curves: planted ones collapse, those that a wrong rate bends do not, and what cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from proxytrain import Curve, Refusal, RequestError, collapse

SIZES = (25_000, 56_000, 99_000, 223_000)
FLOOR = 1.2


def rates(updates: int, warmup: float = 0.05) -> np.ndarray:
    """A linear rise over a share of the run, and a straight line down to zero."""
    x = np.arange(1, updates + 1) / updates
    return 0.016 * np.minimum(x / warmup, (1 - x) / (1 - warmup))


def run(
    params: float, seed: int, *, bend: float = 0.0, luck: float = 0.01, noise: float = 0.01, drift: float = 0.0
) -> Curve:
    """L0 + a C^-b l(x) with l(1) = 1. Of relative SD are the luck that a run keeps, noise of rows, and a slow wave.

    `bend` is by how much a size whose rate does not scale lies higher early in training, for each e-fold of size.
    """
    rng = np.random.default_rng([seed, int(params)])
    updates = round(20 * params / 1024)
    x = (np.arange(updates) + 0.5) / updates
    end = 0.9 * (6 * 20 * params**2 / 1e11) ** -0.12 * (1 + luck * rng.standard_normal())
    shape = (0.3 + 0.7 * x) ** -0.4 * (1 + bend * np.log(params / SIZES[0]) * (1 - x))
    slow = 1 + drift * rng.standard_normal() * np.sin(7 * x)
    loss = (FLOOR + end * shape * slow) * (1 + noise * rng.standard_normal(updates))
    return Curve(
        rates(updates), np.arange(updates), loss, float(params), 1024.0, order=str(seed), name=f"{params} {seed}"
    )


def runs(sizes=SIZES, seeds=range(3), **how) -> list[Curve]:
    return [run(n, s, **how) for n in sizes for s in seeds]


@pytest.mark.parametrize("first", [0, 3, 6])
def test_curves_that_differ_in_luck_only_are_a_supercollapse(first):
    found = collapse(runs(seeds=range(first, first + 3)))
    assert found.verdict == "supercollapse"
    assert found.share == 1.0
    sizes, seeds = found.typical
    assert sizes < 0.7 * seeds
    assert 0.005 < seeds < 0.02  # the luck that was planted
    assert list(found.curves) == list(SIZES)
    text = " ".join(found.summary())
    assert text.startswith("supercollapse: normalised curves of 4 sizes differ by 0.")
    assert "at 100% of these x" in text
    assert "from 12 runs" in text


def test_every_run_ends_at_one_and_the_last_window_is_not_compared():
    found = collapse(runs(drift=0.01))
    for curve in found.curves.values():
        assert curve[-1] == pytest.approx(1.0, abs=1e-12)
    assert found.across_sizes[-1] == pytest.approx(0.0, abs=1e-12)
    assert found.across_seeds[-1] > 0.003
    assert found.x[found.compared][[0, -1]].tolist() == pytest.approx([0.2, 0.9])


def test_smoothing_bends_no_curve_whatever_its_length():
    found = collapse(runs(noise=0.0))
    assert max(found.across_sizes) < 1e-3  # of 488 and of 4,355 updates
    assert found.floor == pytest.approx(FLOOR, abs=0.02)  # the curves know it better than their ends


@pytest.mark.parametrize("first", [0, 3, 6])
def test_a_rate_that_does_not_scale_breaks_it(first):
    found = collapse(runs(seeds=range(first, first + 3), luck=0.003, bend=0.08))
    assert found.verdict == "none"
    assert found.share < 0.3
    assert found.summary()[0].startswith("no collapse: ")


def test_sizes_that_differ_as_seeds_do_are_no_supercollapse():
    assert collapse(runs(drift=0.03)).verdict == "collapse"


def test_more_seeds_do_not_make_sizes_look_alike():
    one, many = (
        np.mean([collapse(runs(seeds=range(n, n + k), luck=0.003, drift=0.02)).typical[0] for n in range(0, 16, 4)])
        for k in (1, 4)
    )
    assert 0.7 * one < many < 1.5 * one


def test_the_floor_lies_in_its_interval():
    inside = 0
    for first in range(0, 36, 3):
        found = collapse(runs(seeds=range(first, first + 3)))
        assert found.floor_low <= found.floor <= found.floor_high
        inside += found.floor_low <= FLOOR <= found.floor_high
    assert inside >= 9  # of 12, at 90%
    exact = collapse([replace(c, loss=FLOOR + c.params**-0.1 * np.ones(len(c.step))) for c in runs(noise=0.0)])
    assert exact.floor_fit == pytest.approx(FLOOR, abs=0.01)
    assert exact.exponent == pytest.approx(0.05, abs=0.005)


def test_a_floor_that_is_badly_known_is_said_to_be():
    assert "add seeds, or sizes farther apart" in collapse(runs(seeds=(6, 7, 8))).summary()[1]
    assert "add seeds" not in collapse(runs(luck=0.001, noise=0.001)).summary()[1]


def test_without_seeds_there_is_a_spread_and_no_verdict():
    found = collapse(runs(seeds=(0,)))
    assert (found.verdict, found.share, found.across_seeds) == ("", None, None)
    assert found.typical[0] > 0
    assert "init_seed: [0, 1]" in found.summary()[0]


def test_one_size_with_two_seeds_is_enough_for_a_verdict():
    assert collapse([*runs(seeds=(0,)), run(SIZES[0], 1)]).verdict


def test_fewer_than_three_sizes_are_refused():
    with pytest.raises(Refusal, match=r"at least 3 sizes, there are: 25,000, 56,000; add values of model.width"):
        collapse(runs(SIZES[:2]))


def test_another_ratio_of_tokens_to_params_is_refused():
    curves = runs()
    long = run(SIZES[-1], 0)
    half = len(long.step) // 2
    curves[-1] = replace(long, lr=rates(half), step=long.step[:half], loss=long.loss[:half], name="half")
    with pytest.raises(Refusal, match=r"tokens per parameter: .* in half, 20 in .*give tokens_per_param"):
        collapse(curves)


def test_a_schedule_of_another_shape_is_refused_with_where_it_parts():
    curves = runs()
    other = curves[-1]
    curves[-1] = replace(other, lr=rates(other.updates, warmup=0.3), name="slow")
    with pytest.raises(Refusal, match=r"schedules of 25000 0 and slow have other shapes: 0.78 of the peak .*warm-up"):
        collapse(curves)
    curves[-1] = replace(other, lr=3 * other.lr)  # another peak is no other shape
    assert collapse(curves).verdict


def test_losses_that_are_too_sparse_or_end_early_are_refused():
    curves = runs()
    c = curves[0]
    with pytest.raises(Refusal, match=r"25000 0: [01] losses within a tenth"):
        collapse([replace(c, step=c.step[::40], loss=c.loss[::40]), *curves[1:]])
    with pytest.raises(Refusal, match="0 losses within a tenth"):
        collapse([replace(c, step=c.step[:400], loss=c.loss[:400]), *curves[1:]])


def test_losses_that_rise_with_size_have_no_floor():
    curves = [replace(c, loss=c.loss + c.params / 1e5) for c in runs()]
    with pytest.raises(Refusal, match="final losses do not fall with size"):
        collapse(curves)


def test_a_curve_without_size_or_batch_is_an_error():
    with pytest.raises(RequestError, match=r"25000 0: no tokens_per_step"):
        collapse([replace(c, tokens_per_step=None) for c in runs()])
    with pytest.raises(RequestError, match=r"curves\[0\]: must be a Curve"):
        collapse([1])  # type: ignore[list-item]


def test_the_public_name_stays_a_function_beside_a_file_of_the_same_name():
    import_module("proxytrain.analysis.collapse")
    assert callable(import_module("proxytrain").collapse)
