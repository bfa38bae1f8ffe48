"""Sensitivity to the learning rate and growth of attention logits: analytic cases, planted laws, refusals."""

import math

import numpy as np
import pytest

from proxytrain import Refusal, RequestError, fit_logits, lr_sensitivity
from proxytrain.analysis.stability import BEND, difference, loss_spikes

RATES = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]


def test_models_that_stay_random_and_flat_curves_score_nothing():
    assert lr_sensitivity(RATES, [5.5] * 7, 5.5).value == 0
    assert lr_sensitivity(RATES, [math.nan] * 6 + [math.inf], 5.5).value == 0
    assert lr_sensitivity(RATES, [2.0] * 7, 5.5).value == 0


def test_shifting_every_loss_changes_nothing_and_a_lost_run_scores_its_initial_loss():
    losses = np.array([4.0, 3.0, 2.5, 2.4, 2.6, 8.0, math.nan])
    found = lr_sensitivity(RATES, losses, 5.5)
    assert found.value == pytest.approx(np.mean([4.0, 3.0, 2.5, 2.4, 2.6, 5.5, 5.5]) - 2.4)
    assert found.lost == 2
    assert found.best_lr == 1e-2
    assert lr_sensitivity(RATES, losses + 1, 6.5).value == pytest.approx(found.value)


def test_the_interval_is_over_seeds_and_differences_are_paired():
    generator = np.random.default_rng(0)
    inside, beside = 0, 0
    for _ in range(200):
        own = 0.3 + 0.05 * generator.standard_normal(4)
        seeds, rates = np.repeat(np.arange(4), 7), np.tile(RATES, 4)
        a = lr_sensitivity(rates, np.concatenate([[2.0] + [2.0 + s] * 6 for s in own]), 9.0, seeds)
        b = lr_sensitivity(rates, np.concatenate([[2.0] + [2.1 + s] * 6 for s in own]), 9.0, seeds)
        inside += a.low < 0.3 * 6 / 7 < a.high
        value, low, high = difference(b, a)
        assert low <= value <= high
        assert value == pytest.approx(0.1 * 6 / 7)
        assert high - low < 1e-9  # what seeds share is gone
        beside += low < 0.1 * 6 / 7 < high
    assert 165 <= inside <= 194  # of 200, at 90%
    assert math.isnan(lr_sensitivity(RATES, [2.0] * 7, 5.5).low)


@pytest.mark.parametrize("rates", [[0.01, 0.1], [0.01, 0.02, 0.04], []])
def test_rates_that_span_no_decade_are_refused_with_what_to_add(rates):
    with pytest.raises(Refusal, match=r"at least 3 rates over a decade .* there are: (0.01|none).* add such as lr"):
        lr_sensitivity(rates, [2.0] * len(rates), 5.5)


def test_a_rate_twice_under_a_seed_and_a_negative_rate_are_errors():
    with pytest.raises(RequestError, match=r"lr=0.01: tried twice under seed 0"):
        lr_sensitivity([0.001, 0.01, 0.01, 0.1], [2.0] * 4, 5.5)
    with pytest.raises(RequestError, match="must be above 0"):
        lr_sensitivity([0.001, -0.01, 0.1], [2.0] * 3, 5.5)


def test_sensitivities_over_other_rates_are_not_compared():
    a, b = lr_sensitivity(RATES, [2.0] * 7, 5.5), lr_sensitivity(RATES[1:], [2.0] * 6, 5.5)
    with pytest.raises(Refusal, match="different rates"):
        difference(a, b)


@pytest.mark.parametrize(("sizes", "seeds"), [(3, 2), (4, 1), (7, 2)])
@pytest.mark.parametrize("bend", [0.0, 0.03])
def test_a_planted_crossing_lies_in_its_interval(sizes, seeds, bend):
    generator = np.random.default_rng(sizes)
    n = np.repeat(np.geomspace(1e4, 3e5, sizes), seeds)
    truth = np.log(20) + 0.8 * np.log(n / 5e4) + bend * np.log(n / 5e4) ** 2
    at = np.geomspace(1e4, 1e9, 100_001)
    curve = np.log(20) + 0.8 * np.log(at / 5e4) + bend * np.log(at / 5e4) ** 2
    crossing = at[curve >= np.log(1e4)][0]
    inside, reach = 0, []
    for _ in range(60):
        found = fit_logits(n, np.exp(truth + 0.15 * generator.standard_normal(len(n)))).crossing()
        inside += found.low <= crossing <= found.high
        reach.append(found.params / crossing)
    assert inside >= 50  # of 60, at 90%
    assert 0.4 < np.median(reach) < 2.5


def test_an_exact_power_law_is_given_back():
    n = np.array([1e4, 4e4, 16e4, 64e4])
    found = fit_logits(n, 3 * (n / 1e4) ** 0.9)
    assert found.exponent == pytest.approx(0.9, abs=1e-3)
    assert found.crossing(1e4).params == pytest.approx(1e4 * (1e4 / 3) ** (1 / 0.9), rel=0.02)
    assert found.predict(1e6)[0] == pytest.approx(3 * 100**0.9, rel=0.01)


def test_logits_that_do_not_grow_cross_nothing():
    n = np.repeat([1e4, 4e4, 16e4, 64e4], 2)
    found = fit_logits(n, 3 * np.exp(0.02 * np.random.default_rng(0).standard_normal(8))).crossing()
    assert math.isinf(found.params)
    assert math.isinf(found.high)
    assert found.reach == 64e7


def test_the_bend_is_not_known_from_three_sizes_and_the_interval_knows():
    n = np.repeat([1e4, 4e4, 16e4], 3)
    noise = np.exp(0.1 * np.random.default_rng(1).standard_normal(9))
    few = fit_logits(n, 3 * (n / 1e4) * noise)
    assert math.sqrt(few.covariance[2, 2]) < BEND
    far = few.predict(1e7)
    assert np.log(far[2] / far[0]) > 1.8 * BEND * np.log(1e7 / few.centre) ** 2 * 0.5


@pytest.mark.parametrize(
    ("sizes", "have"),
    [([1e4, 4e4] * 2, "10,000, 40,000"), ([1e4, 1.2e4, 1.5e4] * 2, "10,000, 12,000"), ([1e4, 4e4, 9e4], "3 runs of")],
)
def test_too_few_sizes_are_refused_with_what_to_add(sizes, have):
    with pytest.raises(Refusal, match=f"at least 3 sizes.*{have}.* add values of model.width"):
        fit_logits(sizes, [5.0] * len(sizes))


def test_a_logit_that_is_none_is_an_error():
    with pytest.raises(RequestError, match=r"logit=-1: must be above 0"):
        fit_logits([1e4, 4e4, 16e4], [5.0, -1.0, 5.0])


def test_a_spike_counts_once_and_noise_does_not():
    generator = np.random.default_rng(0)
    loss = 5 * np.arange(1, 3001) ** -0.1 * (1 + 0.05 * generator.standard_normal(3000))
    assert len(loss_spikes(loss)) == 0
    loss[[1000, 1001, 1005, 2000]] *= 2
    assert loss_spikes(loss).tolist() == [1000, 2000]
    assert len(loss_spikes(loss[:50])) == 0


def test_a_seed_that_lacks_a_rate_is_left_out_and_a_rate_that_all_lack_too():
    seeds, rates = [0] * 3 + [1] * 2, [0.001, 0.01, 0.1, 0.001, 0.01]
    alone = lr_sensitivity(rates, [3.0, 2.0, math.nan, 3.3, 2.4], 5.5, seeds)
    assert list(alone.each) == [0]
    assert (alone.lost, alone.rates) == (1, (0.001, 0.01, 0.1))
    seeds, rates = [0] * 4 + [1] * 4, [0.001, 0.003, 0.01, 0.1, 0.001, 0.01, 0.1, 1.0]
    both = lr_sensitivity(rates, [3.0, 2.5, 2.0, 4.0, 3.0, 2.0, 4.0, math.nan], 5.5, seeds)
    assert both.rates == (0.001, 0.01, 0.1)
    assert both.lost == 0
    assert both.low == pytest.approx(both.value)
