"""Losses smoothed before they were logged are named and put right; what is smooth by nature is left as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from curve_cases import RUNS, SPOILT, TARGET, noisy, planted, write
from curve_data import curve
from test_curve_spikes import DATA as BANKS

from proxytrain.errors import Refusal
from proxytrain.fit import Curve, fit_curves, load_fit
from proxytrain.fit.curves.reading import read_curves
from proxytrain.fit.curves.smoothing import undone
from proxytrain.fit.curves.spikes import find_spikes

Smooth = Callable[[pd.Series], pd.Series]
SHARED = Path(__file__).parents[2] / "../shared/data/curves"


def curves(smooth: Smooth, every: int = 5, only: int | None = None) -> list[Curve]:
    out = []
    for j, (n, kind, steps) in enumerate(RUNS):
        run = noisy(n, kind, steps, j)
        rows = (run.assign(loss=smooth(run.loss)) if only in (None, j) else run).iloc[every - 1 :: every].dropna()
        out.append(Curve(run.lr.to_numpy(), rows.step.to_numpy(), rows.loss.to_numpy(), params=n, name=f"run_{j}"))
    return out


def miss(found: list[Curve]) -> float:
    """Return the mean log ratio to the planted losses over the last 40% of updates."""
    late = []
    for c, (n, kind, steps) in zip(found, RUNS):
        keep = c.step > 0.6 * steps
        late.append(np.log(c.loss[keep] / planted(n, kind, steps).loss.to_numpy()[c.step[keep] - 1]).mean())
    return float(np.mean(late))


@pytest.mark.parametrize("every", [5, 20])
def test_an_exponential_mean_is_undone_and_the_planted_loss_is_predicted(tmp_path: Path, every: int) -> None:
    folder = write(tmp_path / "curves", lambda run, _: run.assign(loss=run.loss.ewm(alpha=0.01).mean()), every)
    fit = fit_curves(folder, law="progress", allow_extrapolation=True)
    assert any(w.startswith("SMOOTHED: losses of 9 of 9 curves (run_0, run_1") for w in fit.warnings)
    assert any(line.startswith("note: SMOOTHED") for line in fit.summary())
    lr, truth = TARGET.lr.to_numpy(), float(TARGET.loss.iloc[-1])
    loss, low, high = fit.predict(lr, params=27e6).final
    assert low <= truth <= high
    assert loss == pytest.approx(truth, rel=0.01)
    fit.save(tmp_path / "fit.json")
    loaded = load_fit(tmp_path / "fit.json")
    assert loaded.predict(lr, params=27e6).final == (loss, low, high)
    assert loaded.summary() == fit.summary()


@pytest.mark.parametrize(
    ("smooth", "every", "says"),
    [
        (lambda x: x.ewm(alpha=0.02).mean(), 5, "an exponential mean with a weight of about 0.0"),
        (lambda x: x.ewm(alpha=0.01, adjust=False).mean(), 5, "an exponential mean with a weight of about 0.0"),
        (lambda x: x.ewm(alpha=0.1).mean(), 1, "an exponential mean with a weight of about 0.09"),
        (lambda x: x.rolling(50, min_periods=1).mean(), 1, "a moving mean over about 50 updates"),
        (lambda x: x.rolling(100).mean(), 5, "a moving mean over about 100 updates"),
        (lambda x: x.rolling(200, min_periods=1).mean(), 10, "a moving mean over about 200 updates"),
    ],
)
def test_a_lag_is_named_and_put_right(smooth: Smooth, every: int, says: str) -> None:
    lagging = curves(smooth, every)
    found, (note,), unsure = undone(lagging)
    assert says in note
    assert abs(miss(found)) < 0.25 * miss(lagging) + 5e-4
    assert unsure > 0


def test_smoothing_that_cannot_be_undone_widens_the_interval() -> None:
    lagging = curves(lambda x: x.ewm(alpha=0.02).mean().ewm(alpha=0.02).mean())
    found, (note,), unsure = undone(lagging)
    assert "in a way that cannot be undone" in note
    assert miss(found) == miss(lagging)
    assert unsure > miss(lagging)


def test_one_smoothed_curve_among_others_is_named() -> None:
    found, (note,), _ = undone(curves(lambda x: x.ewm(alpha=0.01).mean(), only=SPOILT))
    assert note.startswith("SMOOTHED: losses of 1 of 9 curves (run_4)")
    assert [len(c.step) for c in found[:4]] == [len(c.step) for c in curves(lambda x: x)[:4]]


def test_smoothing_over_much_of_a_run_is_refused() -> None:
    with pytest.raises(Refusal, match=r"run_\d: its losses are smoothed over about \d+ of .* updates\. Log the loss"):
        undone(curves(lambda x: x.ewm(alpha=0.002).mean()))


@pytest.mark.parametrize("every", [1, 5, 20, 50])
def test_losses_of_batches_are_left_as_they_are(every: int) -> None:
    clean = curves(lambda x: x, every)
    assert undone(clean) == (clean, [], 0.0)


def test_means_of_separate_blocks_are_left_as_they_are() -> None:
    blocks = curves(lambda x: x.rolling(20).mean(), 20)
    assert undone(blocks) == (blocks, [], 0.0)


def test_a_trunk_that_runs_share_does_not_count_more_than_once() -> None:
    runs = [curve(k, sd=0.002) for k in ("constant", "cosine", "wsd")]
    assert undone(runs * 3)[1] == []


@pytest.mark.parametrize("bank", ["bank", "bank_gpt"])
def test_no_regime_of_the_banks_is_named(bank: str) -> None:
    """Their batches' shared noise is taken out: what is left hangs together over a few rows by nature."""
    table = pd.read_csv(BANKS / bank / "losses.csv").set_index("run")
    found = []
    for key, run in pd.read_parquet(BANKS / bank / "curves.parquet").groupby("run", observed=True):
        lr = np.minimum(np.arange(1, run["step"].max() + 1) / 100, 1)
        step, loss = run["step"].to_numpy(), run["loss"].to_numpy(float)
        found.append(Curve(lr, step, loss, params=float(table.loc[key, "params"]), name=str(key)))
    assert undone(found)[1] == []
    assert [undone(found[i : i + 4])[1] for i in range(0, len(found), 4)] == [[]] * -(-len(found) // 4)


@pytest.mark.skipif(not SHARED.is_dir(), reason="published curves (../shared/data) are not there")
@pytest.mark.parametrize("size", ["25M", "100M"])
def test_published_block_means_are_left_as_they_are(size: str) -> None:
    found, _ = read_curves(SHARED / "multipowerlaw" / size)
    assert undone(found)[1] == []
    assert [undone([a, b])[1] for a in found for b in found if a is not b] == [[]] * 72


@pytest.mark.skipif(not SHARED.is_dir(), reason="published curves (../shared/data) are not there")
@pytest.mark.parametrize("column", ["train_loss", "val_loss"])
def test_published_training_and_validation_losses_are_left_as_they_are(column: str) -> None:
    found = []
    for path in sorted((SHARED / "schedules").glob("*.csv")):
        run = pd.read_csv(path)
        if {"lr", column} <= set(run):
            rated, rows = run.dropna(subset=["lr"]), run.dropna(subset=[column])
            rows = rows[(rows.step > 0) & (rows.step <= rated.step.iloc[-1])]
            lr = np.interp(np.arange(1, int(rated.step.iloc[-1]) + 1), rated.step, rated.lr)
            found.append(Curve(lr, rows.step.to_numpy(), rows[column].to_numpy(), name=path.stem))
    assert len(found) > 90
    assert undone(found)[1] == []
    assert [undone(found[i : i + 6])[1] for i in range(0, len(found), 6)] == [[]] * -(-len(found) // 6)
    assert [c.name for c in found if find_spikes(c) != ([], None)] == []
