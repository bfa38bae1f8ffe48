"""Fits of loss curves: what was planted comes back, other schedules and sizes are predicted, the rest is refused."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import curve_data
import numpy as np
import pytest
from curve_data import curve, losses, rates

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit import Curve, CurveFit, fit_curves, load_fit
from proxytrain.fit.curves.curve import quieted

SIZES = (0.5, 1.0, 2.0)


@pytest.fixture(scope="module")
def one_size() -> CurveFit:
    return fit_curves([curve("constant"), curve("cosine"), curve("two")])


@pytest.fixture(scope="module")
def joint() -> CurveFit:
    return fit_curves([curve(k, size=n) for n in SIZES for k in ("constant", "wsd", "cosine")], law="progress")


def test_another_schedule_is_predicted(one_size: CurveFit) -> None:
    for kind in ("wsd", "sqrt"):
        lr = rates(kind)
        answer = one_size.predict(lr)
        truth = losses(lr)
        assert answer.loss.shape == answer.low.shape == lr.shape
        assert np.abs(answer.loss / truth - 1)[600:].mean() < 2e-3
        assert abs(answer.final[0] / truth[-1] - 1) < 5e-3
        assert ((answer.low <= truth) & (truth <= answer.high))[600:].mean() > 0.9
        assert answer.note == ""


def test_what_was_planted_comes_back() -> None:
    """Five schedules determine the shapes: each within three standard errors, and few percent."""
    fit = fit_curves([curve(k, sd=0.002) for k in ("constant", "cosine", "wsd", "sqrt", "two")], law="progress")
    truth = {"alpha": 0.5, "q": 0.6, "p": 0.8, "L0": 2.8}
    for name, value in truth.items():
        assert abs(fit.params[name] - value) < max(3 * fit.stderr[name], 0.02 * value), name
    assert np.exp(fit.main.theta[fit.main.names.index("log_rate")]) == pytest.approx(np.exp(-4.0), rel=0.2)


def test_the_law_that_is_right_weighs_most(one_size: CurveFit) -> None:
    assert one_size.main.law.name == "progress"
    assert sum(one_size.weights) == pytest.approx(1.0)
    assert {h.cut for h in one_size.backtest} >= {"schedule of constant 6000", "schedule of cosine 6000"}


def test_a_larger_size_under_another_schedule(joint: CurveFit) -> None:
    lr = rates("sqrt")
    answer = joint.predict(lr, params=6e7)
    truth = losses(lr, 6.0)[-1]
    assert answer.final[0] == pytest.approx(truth, rel=0.015)
    assert answer.final[1] <= truth <= answer.final[2]
    nearer = joint.predict(lr, params=1e7).final
    assert nearer[2] - nearer[1] < answer.final[2] - answer.final[1]


def test_lengths_of_one_schedule_part_and_the_longest_are_held_out() -> None:
    fit = fit_curves([curve("wsd", updates=n) for n in (2000, 4000, 6000)], law="progress")
    assert {(h.cut, round(h.longer, 3), h.larger) for h in fit.backtest} == {("updates < 6000", 0.405, 0.0)}
    lr = rates("wsd", 12000)
    assert fit.predict(lr).final[0] == pytest.approx(losses(lr)[-1], rel=0.01)
    with pytest.raises(Refusal, match="under one schedule"):
        fit_curves([curve("constant", updates=n) for n in (2000, 4000, 6000)])


def test_what_longer_runs_showed_widens_the_interval_of_still_longer_ones() -> None:
    """The longest run ends 4% above what the shorter ones say: so may a longer one, and by more."""
    true = [curve("wsd", updates=n) for n in (2000, 4000, 6000)]
    late = np.maximum(np.log(true[-1].step / 4000) / np.log(1.5), 0)
    bent = [*true[:2], dataclasses.replace(true[-1], loss=true[-1].loss * np.exp(0.04 * late))]
    fits = [fit_curves(c, law="progress", allow_extrapolation=True) for c in (true, bent)]
    (held,) = fits[1].backtest
    assert held.end == pytest.approx(-0.04, abs=0.015)
    for longer in (9000, 24000):
        wide, narrow = (np.log(f.predict(rates("wsd", longer)).final) for f in reversed(fits))
        assert (wide[2] - wide[1]) / 2 >= abs(held.end) * np.log(longer / 6000) / np.log(1.5)
        assert wide[2] - wide[1] > 2 * (narrow[2] - narrow[1])


def test_noise_that_falls_with_progress_is_found() -> None:
    """A law that holds the noise constant expects too much of a later decay: a run four times longer is 3% off."""
    runs = [curve("wsd", updates=n, sd=0.002) for n in (1500, 3000, 6000)]
    faded = [dataclasses.replace(c, loss=c.loss * (losses(c.lr, 1.0, 0.5) / losses(c.lr))[c.step - 1]) for c in runs]
    lr = rates("wsd", 24000)
    truth = losses(lr, 1.0, 0.5)[-1]
    fits = [fit_curves(faded, law=law, allow_extrapolation=True) for law in ("progress", "kernel")]
    error, constant = (np.log(f.predict(lr).final[0] / truth) for f in fits)
    assert fits[0].params["fade"] == pytest.approx(0.5, abs=2 * fits[0].stderr["fade"])
    assert fits[0].params["fade"] > 0.25
    assert abs(error) < 0.005
    assert constant < -0.02


def test_a_length_that_nothing_was_held_out_for_is_uncertain() -> None:
    fit = fit_curves([curve(k) for k in ("constant", "wsd", "cosine")], law="progress", allow_extrapolation=True)
    untested = dataclasses.replace(fit, backtest=tuple(h for h in fit.backtest if not h.longer))
    low, high = np.log(untested.predict(rates("wsd", 12000)).final[1:])
    assert (high - low) / 2 >= 0.05 * np.log(2)


def test_units_of_the_rate_do_not_matter(one_size: CurveFit) -> None:
    other = fit_curves([dataclasses.replace(c, lr=c.lr * 1000) for c in one_size.curves])
    a, b = other.predict(rates("wsd") * 1000).loss, one_size.predict(rates("wsd")).loss
    np.testing.assert_allclose(a[600:], b[600:], rtol=3e-4)  # up to where the search stops


def test_the_same_curves_give_the_same_digits(one_size: CurveFit) -> None:
    again = fit_curves(list(one_size.curves))
    assert (again.predict(rates("wsd")).high == one_size.predict(rates("wsd")).high).all()


def test_saved_and_loaded(one_size: CurveFit, joint: CurveFit, tmp_path: Path) -> None:
    for fit, params in ((one_size, None), (joint, 3e7)):
        fit.save(tmp_path / "fit.json")
        loaded = load_fit(tmp_path / "fit.json")
        assert isinstance(loaded, CurveFit)
        for side in ("loss", "low", "high"):
            a, b = (getattr(f.predict(rates("wsd"), params=params), side) for f in (fit, loaded))
            assert (a == b).all()
        assert loaded.summary() == fit.summary()
    (tmp_path / "fit.json").write_text('{"format": "proxytrain curve fit 2", "laws": []}')
    with pytest.raises(RequestError, match="not a whole fit"):
        load_fit(tmp_path / "fit.json")


def test_rows_that_runs_share_count_once() -> None:
    """Endings that branch from one trunk repeat its rows: without them the fit is the same to the digit."""
    trunk = curve("constant")
    ending = curve("wsd")
    branch = 4800
    own = ending.step > branch
    whole = dataclasses.replace(ending, loss=np.where(own, ending.loss, trunk.loss))
    part = dataclasses.replace(ending, step=ending.step[own], loss=ending.loss[own])
    a, b = (fit_curves([trunk, e], law="kernel") for e in (whole, part))
    np.testing.assert_array_equal(a.main.theta, b.main.theta)


def test_the_best_decay(one_size: CurveFit) -> None:
    """The planted law's own best share, found by trying them all, is among those that may be as good."""
    shares = np.linspace(0.05, 0.9, 18)
    s = np.arange(1, 6001)
    rise = np.minimum(1, s / 300)
    truth = [losses(rise * (1 - np.clip((s - (1 - x) * 6000) / (x * 6000), 0, 1)))[-1] for x in shares]
    decay = one_size.best_decay(6000, warmup=300)
    low, high = decay.as_good
    assert low - 0.06 <= shares[int(np.argmin(truth))] <= high + 0.06
    assert decay.loss[decay.share == decay.best] == decay.loss.min()
    for bad in ({"shape": "square"}, {"warmup": 6000}, {"end": 1.0}):
        with pytest.raises(RequestError):
            one_size.best_decay(6000, **bad)


def test_training_curves_predict_validation_through_a_ratio() -> None:
    def with_validation(c: Curve) -> Curve:
        ratio = np.exp(0.05 + 0.004 * np.log(c.params / 1e7))
        return dataclasses.replace(
            c, val_step=np.array([c.updates]), val_loss=losses(c.lr, c.params / 1e7)[-1:] * ratio
        )

    fit = fit_curves([with_validation(curve(k, size=n)) for n in SIZES for k in ("constant", "wsd", "cosine")])
    assert fit.predicts == "validation"
    assert fit.ratio is not None
    assert fit.ratio.at(1e7)[0] == pytest.approx(0.05, abs=0.004)
    lr = rates("sqrt")
    truth = losses(lr, 4.0)[-1] * np.exp(0.05 + 0.004 * np.log(4))
    low, high = fit.predict(lr, params=4e7).final[1:]
    assert low <= truth <= high
    assert fit.ratio.at(1e9)[1] > fit.ratio.at(1e7)[1]


def test_several_peaks_of_one_size_tell_how_the_peak_counts() -> None:
    curves = [curve(k, peak=p, sd=0.003) for k in ("constant", "cosine") for p in (1e-3, 4e-4)]
    assert fit_curves(curves, law="progress").covered.scaling == 0.0  # planted: only rates relative to the peak count
    confounded = fit_curves([curve("constant"), curve("cosine", peak=4e-4)], law="progress")
    assert any("go with size or schedule" in w for w in confounded.warnings)


def test_a_profile_has_its_minimum_at_the_estimate(one_size: CurveFit) -> None:
    found = one_size.profile("alpha", points=7)
    assert found["rise"][3] < 0.05
    assert (found["rise"][[0, -1]] > 2.7).all()
    with pytest.raises(RequestError, match="allowed are"):
        one_size.profile("gamma ray")


def jumpy(c: Curve) -> Curve:
    later = 0.08 / (1 + np.exp(-(c.step - 3000) / 60))
    return dataclasses.replace(c, loss=c.loss - later * c.loss)


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ([curve("constant")], "1 curve under one schedule"),
        ([curve("constant"), curve("constant", seed=1)], "2 curves under one schedule"),
        ([curve("constant"), jumpy(curve("wsd"))], "1 of 2 curves have a jump"),
        ([curve("constant"), dataclasses.replace(curve("wsd"), step=[10, 20], loss=[3.0, 2.9])], "at least 5 losses"),
    ],
)
def test_refused(curves: list[Curve], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        fit_curves(curves)


def test_predictions_that_the_curves_do_not_support(one_size: CurveFit, joint: CurveFit) -> None:
    with pytest.raises(Refusal, match=r"beyond the curves.*allow_extrapolation"):
        one_size.predict(rates("wsd", updates=400_000))
    allowed = dataclasses.replace(one_size, allow_extrapolation=True)
    assert allowed.predict(rates("wsd", updates=400_000)).note.startswith("EXTRAPOLATION")
    with pytest.raises(Refusal, match="at least three sizes"):
        one_size.predict(rates("wsd"), params=5e7)
    with pytest.raises(RequestError, match="params: needed"):
        joint.predict(rates("wsd"))
    with pytest.raises(Refusal, match="beyond the curves"):
        joint.predict(rates("wsd"), params=1e13)
    assert "as well tuned" in one_size.predict(rates("wsd", peak=1e-2)).note
    for bad in ([], [0.0, 0.0], [1.0, float("nan")], "abc", [[1.0]]):
        with pytest.raises(RequestError, match="lr"):
            one_size.predict(bad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": np.zeros(6000)}, "not all 0"),
        ({"lr": np.full(6000, -1.0)}, "0 or more"),
        ({"lr": np.full(5, 1e-3)}, "lr has 5 values"),
        ({"loss": np.full(1476, 300.0)}, "300 in row 1"),
        ({"loss": np.full(7, 3.0)}, "1476 values of step and 7 of loss"),
        ({"step": np.arange(6000, 96, -4)}, "must rise"),
        ({"step": np.r_[100, 100, np.arange(108, 6001, 4)]}, "repeated"),
        ({"step": np.arange(1476) + 0.5}, "0.5 in row 1"),
        ({"loss": np.full(1476, np.nan)}, "nan in row 1"),
        ({"lr": ["a"]}, "lr must be numbers"),
        ({"params": 12}, "params=12"),
        ({"val_step": [6000], "val_loss": [3.0, 2.0]}, "1 values of val_step and 2 of val_loss"),
    ],
)
def test_curves_that_cannot_be(change: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        dataclasses.replace(curve("constant"), **change)


def test_curves_that_contradict_each_other() -> None:
    with pytest.raises(RequestError, match="give all or none"):
        fit_curves([curve("constant", size=1.0), curve("wsd")])
    a, b = (dataclasses.replace(curve(k), tokens_per_step=t) for k, t in (("constant", 1e3), ("wsd", 2e3)))
    with pytest.raises(RequestError, match="one batch size"):
        fit_curves([a, b])
    with pytest.raises(RequestError, match="allowed are auto"):
        fit_curves([curve("constant"), curve("wsd")], law="chinchilla")
    with pytest.raises(RequestError, match=r"curves\[0\]: must be a Curve, not int"):
        fit_curves([3])
    with pytest.raises(RequestError, match="none given"):
        fit_curves([])


DATA = Path(os.environ.get("PROXYTRAIN_DATA", Path(__file__).parents[3] / "shared" / "data")) / "curves"
published = pytest.mark.skipif(not DATA.is_dir(), reason="published curves (../shared/data) are not there")


@published
def test_published_curves_of_two_sizes() -> None:
    """Luo et al.: fitted on three curves of a size, mean absolute error on six others at most .0035 (theirs .0041)."""
    errors = []
    for size in ("25M", "100M"):
        runs = curve_data.published(DATA / "multipowerlaw" / size)
        fit = fit_curves([runs[n] for n in ("cosine_24000", "constant_24000", "wsdcon_9")])
        for name in runs.keys() - {c.name for c in fit.curves}:
            c = runs[name]
            errors.append(np.abs(fit.predict(c.lr).loss[c.step - 1] - c.loss).mean())
    assert np.mean(errors) <= 0.0035


def test_what_runs_of_one_order_share_is_taken_out() -> None:
    """Batches of 5% luck, the same for all runs: with their order known, residuals are those of the runs' own noise."""
    luck = np.exp(0.05 * np.random.default_rng(3).standard_normal(6001))

    def shared(kind: str, order: str) -> Curve:
        c = curve(kind, sd=0.002)
        return dataclasses.replace(c, loss=c.loss * luck[c.step], order=order)

    known, unknown = ([shared(k, order) for k in ("constant", "cosine", "two")] for order in ("seed 0", ""))
    lr, truth = rates("wsd"), losses(rates("wsd"))
    errors = [np.abs(fit_curves(c, law="progress").predict(lr).loss / truth - 1)[600:].mean() for c in (known, unknown)]
    assert errors[0] < 2e-3
    assert errors[0] < errors[1]
    quiet = quieted(known)[0]
    assert np.abs(np.log(quiet.loss / curve("constant", sd=0.002).loss)).std() < 0.02
    alone = quieted([known[0]])[0]
    assert (alone.loss == known[0].loss).all()
