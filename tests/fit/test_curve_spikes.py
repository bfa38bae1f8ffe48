"""Spikes are cut out, runs that diverge are left out, both by name; capabilities and schedules are neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from curve_cases import SPOILT, TARGET, noisy, write
from curve_data import curve

from proxytrain.errors import Refusal
from proxytrain.fit import Curve, CurveFit, fit_curves, load_fit
from proxytrain.fit.curves.cleaning import once
from proxytrain.fit.curves.jumps import jump
from proxytrain.fit.curves.spikes import find_spikes, sound, without_spikes

DATA = Path(__file__).parents[1] / "data"
Rise = Callable[[np.ndarray], np.ndarray]


def as_curve(run: pd.DataFrame, every: int = 5) -> Curve:
    rows = run.iloc[every - 1 :: every]
    return Curve(lr=run.lr.to_numpy(), step=rows.step.to_numpy(), loss=rows.loss.to_numpy(), name="run")


def raised(rise: Rise, at: int = 1500, every: int = 5, steps: int = 3000) -> Curve:
    """A run whose loss is higher by `rise` of the updates since `at`."""
    run = noisy(3e6, "wsd", steps, 7)
    later = np.maximum(run.step - at, 0)
    return as_curve(run.assign(loss=run.loss + np.where(run.step >= at, rise(later.to_numpy()), 0.0)), every)


def spoil(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[pd.DataFrame, int], pd.DataFrame]:
    return lambda run, j: change(run) if j == SPOILT else run


def spike(run: pd.DataFrame) -> pd.DataFrame:
    out = run.copy()
    out.loc[1500:1699, "loss"] += 1.5 * np.exp(-np.arange(200) / 40)
    return out


def diverge(run: pd.DataFrame) -> pd.DataFrame:
    return run.assign(loss=run.loss.where(run.step <= 1200, 6.5))


def fitted(folder: Path) -> CurveFit:
    return fit_curves(folder, law="progress", allow_extrapolation=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (spike, "left out updates 1,505 to 1,625 of run_4: a spike, up to 37% above its level"),
        (diverge, "left out run_4: it diverges, its loss is up to 74% above its level from update 1,205 to the end"),
    ],
)
def test_a_run_with_a_spike_or_divergence_is_named_and_the_planted_loss_is_predicted(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], says: str
) -> None:
    fit = fitted(write(tmp_path / "curves", spoil(change)))
    assert says in fit.warnings
    assert f"note: {says}" in fit.summary()
    loss, low, high = fit.predict(TARGET.lr.to_numpy(), params=27e6).final
    planted = float(TARGET.loss.iloc[-1])
    assert low <= planted <= high
    assert loss == pytest.approx(planted, rel=0.01)
    fit.save(tmp_path / "fit.json")
    assert load_fit(tmp_path / "fit.json").summary() == fit.summary()


@pytest.mark.parametrize(
    ("rise", "at", "every"),
    [
        (lambda k: 1.5 * np.exp(-k / 40), 1500, 1),
        (lambda k: 0.3 * np.exp(-k / 100), 1500, 5),
        (lambda k: 5.0 * np.exp(-k / 5), 1500, 5),
        (lambda k: 1.5 * np.exp(-k / 20), 2700, 5),  # while the rate decays
        (lambda k: 0.5 * np.exp(-(((k - 300) / 100) ** 2)), 1500, 5),  # a slow rise
        (lambda k: np.where(k < 50, 2.0, 0.0), 1500, 50),  # one row
    ],
)
def test_a_spike_is_found_where_it_is(rise: Rise, at: int, every: int) -> None:
    spikes, stays = find_spikes(raised(rise, at, every))
    assert stays is None
    assert len(spikes) == 1
    assert at - 5 <= spikes[0].start <= at + 250
    assert spikes[0].end <= at + 500


def test_a_fall_from_a_spike_is_no_jump() -> None:
    spiked = raised(lambda k: 1.5 * np.exp(-k / 40))
    assert jump(spiked) is None
    kept, _ = without_spikes(spiked)
    assert len(spiked.step) - 80 < len(kept.step) < len(spiked.step)


@pytest.mark.parametrize(
    ("rise", "start"),
    [
        (lambda k: 6.0 + 0 * k, 1500),
        (lambda k: 0.0015 * k, 1500),
        (lambda k: 1.5 * np.exp(-k / 3000), 1500),
    ],
)
def test_a_rise_that_stays_is_divergence(rise: Rise, start: int) -> None:
    _, stays = find_spikes(raised(rise, start))
    assert stays is not None
    assert stays.start >= start - 300
    kept, (note,) = sound([raised(rise, start)])
    assert kept == []
    assert note.startswith("left out run: it diverges")


def test_a_loss_that_follows_its_rising_rate_is_neither() -> None:
    """A rate that is raised again (cycles, a second stage) raises the loss."""
    run = noisy(3e6, "wsd", 3000, 0)
    lr = np.where((run.step > 800) & (run.step <= 1500), 2e-4, 1e-3) * np.minimum(run.step / 100, 1)
    loss = 2.2 + 4.2 * (np.cumsum(lr / 1e-3) + 30) ** -0.32 + 0.4 * lr / 1e-3
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal(len(run)))
    assert find_spikes(as_curve(run.assign(lr=lr, loss=loss * noise))) == ([], None)


def test_where_every_run_diverges_nothing_is_fitted(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"no curve is left to fit; left out run_8: it diverges"):
        fitted(write(tmp_path / "curves", lambda run, _: diverge(run)))


def test_what_is_left_out_is_named_where_the_rest_is_too_little(tmp_path: Path) -> None:
    def wsd_diverges(run: pd.DataFrame, j: int) -> pd.DataFrame:
        return diverge(run) if j % 3 else run

    with pytest.raises(Refusal, match=r"left out run_1, run_2, run_4, .*3 curves under one schedule"):
        fitted(write(tmp_path / "curves", wsd_diverges))


def test_rates_that_are_constant_everywhere_may_be_base_rates(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="lr may be the base rate: log the scheduled one"):
        fitted(write(tmp_path / "curves", lambda run, _: run.assign(lr=1e-3)))


@pytest.mark.parametrize("rounded", [6, 3])
def test_a_curve_that_is_there_twice_counts_once(rounded: int) -> None:
    runs = [curve("constant"), curve("cosine"), curve("constant", seed=1)]
    twin = Curve(lr=runs[0].lr, step=runs[0].step, loss=runs[0].loss.round(rounded), name="twin")
    kept, notes = once([*runs, twin])
    assert kept == runs
    assert notes == ["left out twin: its losses repeat those of constant 6000"]


def test_a_run_far_off_the_law_of_all_is_named_with_its_factor(tmp_path: Path) -> None:
    in_bits = spoil(lambda run: run.assign(loss=run.loss / np.log(2)))
    fit = fitted(write(tmp_path / "curves", in_bits))
    assert any(
        w.startswith("SUSPICIOUS: losses of run_4 are 1.4") and "bits in place of nats?" in w for w in fit.warnings
    )
    assert not any("SUSPICIOUS" in w for w in fitted(write(tmp_path / "clean")).warnings)


def test_sizes_that_belong_to_other_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"params: losses rise with size under every schedule, by 1\d\.\d% from 1e\+06"):
        fitted(write(tmp_path / "curves", params=[n for n in (9e6, 3e6, 1e6) for _ in range(3)]))


def published() -> list[Curve]:
    """Return the curves of capabilities that appear, and those of the banks."""
    out = []
    for key, run in pd.read_parquet(DATA / "jumps.parquet").groupby(["width", "seed"]):
        lr, loss = (run[c].to_numpy(float) for c in ("lr", "loss"))
        out.append(Curve(lr=lr, step=np.arange(1, len(lr) + 1), loss=loss, name=str(key)))
    for bank in ("bank", "bank_gpt"):
        for key, run in pd.read_parquet(DATA / bank / "curves.parquet").groupby("run", observed=True):
            lr = np.minimum(np.arange(1, run["step"].max() + 1) / 100, 1)
            out.append(
                Curve(lr=lr, step=run["step"].to_numpy(), loss=run["loss"].to_numpy(float), name=f"{bank} {key}")
            )
    return out


def test_no_curve_of_the_banks_or_with_a_capability_has_a_spike_or_diverges() -> None:
    curves = published()
    assert len(curves) > 600
    assert [c.name for c in curves if find_spikes(c) != ([], None)] == []
