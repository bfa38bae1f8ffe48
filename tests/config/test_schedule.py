"""Schedules: published anchors, continuity, prefixes that do not depend on the end."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from proxytrain.config.schedule import (
    WSD,
    Average,
    Constant,
    Cosine,
    Infinite,
    InverseSqrt,
    Linear,
    Phase,
    Power,
    cut,
    learning_rates,
    phases,
    rate,
)
from proxytrain.errors import RequestError

LR, WARMUP, B = 0.01, 10_000, 1_000
WSD_SQRT = WSD(decay=0.2, shape="sqrt", final=0.0, half_life=None)
POWER = Power(knee=50_000, amplitude=None, exponent=-0.51, decay=0.1, shape="linear", final=0.0, half_life=None)
INFINITE = Infinite(cooldown=300_000, floor=0.25, decay=0.2, shape="exp", final=0.01, half_life=None)
AVERAGE = Average(window=0.2, snapshots=40, half_life=None)
ENDLESS = [Constant(), InverseSqrt(), WSD_SQRT, POWER, INFINITE, AVERAGE]
CLOSED = [Cosine(final=0.1), Linear(final=0.0)]


def make(schedule, tokens: int = 1_000_000, lr: float = LR):
    return phases(schedule, lr=lr, warmup=WARMUP, tokens=tokens, batch_tokens=B)


def test_power_reaches_the_published_anchor():
    # 2408.13359: a = 4.6, b = -0.51, beta = 1024 sequences of 4096 tokens: 1.10e-3 at 1e13 tokens
    power = Power(knee=None, amplitude=4.6, exponent=-0.51, decay=0, shape="linear", final=0.0, half_life=None)
    plan = phases(power, lr=0.02, warmup=4096 * 1024, tokens=10**13, batch_tokens=4096 * 1024)
    assert learning_rates(plan, np.array([1e13]))[0] == pytest.approx(1.10e-3, rel=5e-3)


def test_power_has_slope_minus_b_beyond_its_knee_and_is_constant_before():
    plan = make(POWER)
    n = np.array([20_000, 50_000, 100_000, 200_000])
    lr = learning_rates(plan, n)
    assert lr[0] == lr[1] == LR
    assert math.log(lr[3] / lr[2]) / math.log(2) == pytest.approx(-0.51)


def test_the_published_power_knee_is_where_both_branches_meet():
    # anchors of 2408.13359 with a = 4: 7.5M tokens at beta = 16
    power = Power(knee=None, amplitude=4.0, exponent=-0.51, decay=0, shape="linear", final=0.0, half_life=None)
    plan = phases(power, lr=0.02, warmup=65536, tokens=10**9, batch_tokens=65536)
    assert dict(plan[1].params)["knee"] == pytest.approx(7.5e6, rel=0.01)


def test_wsd_half_life_halves_every_half_life():
    # 2404.06395: f = 0.5^((n - T) / T_half), never 0
    plan = make(WSD(decay=0.2, shape="half_life", final=0.0, half_life=50_000))
    lr = learning_rates(plan, np.array([800_000, 850_000, 900_000, 1_000_000]))
    assert lr == pytest.approx([LR, LR / 2, LR / 4, LR / 16])


def test_one_minus_sqrt_goes_from_one_to_zero_by_its_formula():
    lr = learning_rates(make(WSD_SQRT), np.array([800_000, 850_000, 1_000_000]))
    assert lr == pytest.approx([LR, LR * (1 - math.sqrt(0.25)), 0.0])


def test_cosine_is_half_way_at_half_time_and_ends_at_its_share():
    plan = make(Cosine(final=0.1))
    middle = (WARMUP + 1_000_000) // 2
    assert learning_rates(plan, np.array([WARMUP, middle, 1_000_000])) == pytest.approx([LR, LR * 0.55, LR * 0.1])


def test_exponential_decay_ends_at_its_share():
    plan = make(WSD(decay=0.1, shape="exp", final=0.01, half_life=None))
    assert learning_rates(plan, np.array([900_000, 950_000, 1_000_000])) == pytest.approx([LR, LR * 0.1, LR * 0.01])


def test_the_infinite_schedule_goes_down_to_its_floor_holds_and_anneals():
    lr = learning_rates(make(INFINITE), np.array([10_000, 160_000, 310_000, 800_000, 900_000, 1_000_000]))
    assert lr == pytest.approx([LR, 0.625 * LR, 0.25 * LR, 0.25 * LR, 0.05 * LR, 0.01 * LR])


def test_the_way_to_the_floor_and_the_decay_must_fit():
    with pytest.raises(RequestError, match="310000 of warm-up and cooldown do not fit into a run of 350000 tokens"):
        make(INFINITE, tokens=350_000)


def test_warmup_is_linear_and_reaches_the_peak():
    assert learning_rates(make(WSD_SQRT), np.array([1_000, 5_000, 10_000])) == pytest.approx([LR / 10, LR / 2, LR])


@pytest.mark.parametrize("schedule", [*ENDLESS, *CLOSED], ids=lambda s: s.name)
def test_rates_are_continuous_at_every_joint(schedule):
    plan = make(schedule)
    for before, after in itertools.pairwise(plan):
        assert float(rate(before, before.end)) == pytest.approx(float(rate(after, after.start)), rel=1e-9)
        assert before.end == after.start
    assert (plan[0].start, plan[-1].end) == (0, 1_000_000)


@pytest.mark.parametrize("schedule", ENDLESS, ids=lambda s: s.name)
def test_what_says_it_does_not_depend_on_the_end_does_not(schedule):
    short, long = make(schedule, 500_000), make(schedule, 1_000_000)
    stable = [p for p in short if p.open][-1].end
    n = np.arange(B, stable + 1, B)
    assert np.array_equal(learning_rates(short, n), learning_rates(long, n))
    assert cut(long, stable) == tuple(p for p in short if p.end <= stable)


@pytest.mark.parametrize("schedule", CLOSED, ids=lambda s: s.name)
def test_a_closed_phase_cannot_be_cut(schedule):
    with pytest.raises(ValueError, match="closed"):
        cut(make(schedule), 500_000)


@pytest.mark.parametrize("decay", [0.2, 200_000])
def test_a_decay_is_a_fraction_or_tokens(decay):
    assert make(WSD(decay=decay, shape="sqrt", final=0.0, half_life=None)) == make(WSD_SQRT)


def test_phases_are_whole_updates():
    plan = phases(WSD_SQRT, lr=LR, warmup=1_500, tokens=77_000, batch_tokens=B)
    assert all(p.start % B == 0 and p.end % B == 0 for p in plan)


@pytest.mark.parametrize(
    ("schedule", "tokens", "says"),
    [
        (WSD_SQRT, 8_000, "warmup=10000"),
        (WSD(decay=2_000_000, shape="sqrt", final=0.0, half_life=None), 1_000_000, "schedule.decay=2e\\+06"),
        (WSD(decay=1, shape="sqrt", final=0.0, half_life=None), 1_000_000, "shorter than one update"),
        (WSD(decay=0.2, shape="exp", final=0.0, half_life=None), 1_000_000, "schedule.final=0"),
        (WSD(decay=0.2, shape="half_life", final=0.0, half_life=None), 1_000_000, "schedule.half_life=null"),
        (
            Power(knee=1, amplitude=1.0, exponent=-0.5, decay=0.1, shape="sqrt", final=0.0, half_life=None),
            1_000_000,
            "exactly one",
        ),
        (Average(window=0.9999, snapshots=40, half_life=None), 100_000, "schedule.window=0.9999: 100000 and"),
        (Average(window=1, snapshots=40, half_life=None), 100_000, "or 1000 to 90000 tokens"),
    ],
)
def test_what_cannot_be_is_refused_by_name(schedule, tokens, says):
    with pytest.raises(RequestError, match=says):
        make(schedule, tokens)


def test_a_phase_of_its_own_tokens_only():
    plan = (Phase("hold", 0, 10, (("lr", 1.0),)), Phase("hold", 10, 20, (("lr", 2.0),)))
    assert learning_rates(plan, np.array([10, 11])).tolist() == [1.0, 2.0]
