"""Laws of the optimal learning rate and batch: planted ones come back, published grids are met, the rest is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from proxytrain import fit_optimum, load_fit
from proxytrain.errors import Refusal, RequestError

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "data" / "optimum" / "steplaw_dense.csv"
SIZES, LENGTHS = (1e6, 4e6, 16e6), (2e8, 8e8, 32e8)


def planted(seed=0, *, batches=False, noise=5e-4, scatter=0.0, skew=0.3, sizes=SIZES, lengths=LENGTHS, points=7):
    """Runs around lr = 30 N^-.6 D^.2 (with batches; D^-.3 without), batch = .2 D^.6, steeper at high rates."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in sizes:
        for d in lengths:
            slope = 0.2 if batches else -0.3
            best = np.log(30) - 0.6 * np.log(n) + slope * np.log(d) + scatter * rng.normal()
            best_b = np.log(0.2) + 0.6 * np.log(d) + scatter * rng.normal()
            floor = 2 + 300 * n**-0.35 + 500 * d**-0.35
            off = np.log(2) * (np.arange(points) - points // 2)
            for u in off + rng.uniform(-0.4, 0.4):
                for v in (off if batches else np.zeros(1)) + rng.uniform(-0.4, 0.4) * batches:
                    height = 0.015 * u**2 * (1 + skew * np.clip(u, -2, 2)) + 0.01 * v**2 - 0.006 * u * v * batches
                    loss = floor * np.exp(height + noise * rng.normal())
                    rows.append({"params": n, "tokens": d, "lr": np.exp(best + u), "loss": loss})
                    if batches:
                        rows[-1]["batch_tokens"] = np.exp(best_b + v)
    return pd.DataFrame(rows)


def test_a_planted_law_of_rate_and_batch_comes_back():
    fit = fit_optimum(planted(batches=True))
    assert fit.laws["lr"].exponents == pytest.approx({"params": -0.6, "tokens": 0.2}, abs=0.03)
    assert fit.laws["batch_tokens"].exponents == pytest.approx({"params": 0.0, "tokens": 0.6}, abs=0.03)
    best = fit.predict(params=16e6, tokens=32e8)
    assert best.lr == pytest.approx(30 * 16e6**-0.6 * 32e8**0.2, rel=0.25)  # half of the skew is not believed
    assert best.batch_tokens == pytest.approx(0.2 * 32e8**0.6, rel=0.12)
    assert best.lr_low < 30 * 16e6**-0.6 * 32e8**0.2 < best.lr_high


def test_without_batches_the_law_is_of_the_rate_at_the_batch_that_was_used():
    fit = fit_optimum(planted())
    assert set(fit.laws) == {"lr"}
    assert fit.laws["lr"].exponents == pytest.approx({"params": -0.6, "tokens": -0.3}, abs=0.03)
    assert fit.predict(params=16e6, tokens=32e8).batch_low is None


def test_the_power_schedule_that_follows_the_optima_is_told():
    """Rates planted as beta a T^b (arXiv 2408.13359, a = 4, b = -.51), at two batches."""
    rng, rows = np.random.default_rng(0), []
    for batch in (16 * 4096, 64 * 4096):
        for d in (1e9, 4e9, 16e9):
            for u in np.log(2) * np.arange(-3, 4):
                lr = batch / 4096 * 4 * d**-0.51 * np.exp(u)
                loss = 3 * np.exp(0.01 * u**2 + 1e-4 * rng.normal())
                rows.append({"params": 36e6, "tokens": d, "batch_tokens": batch, "lr": lr, "loss": loss})
    power = fit_optimum(pd.DataFrame(rows)).power_schedule()
    assert power.exponent == pytest.approx(-0.51, abs=0.01)
    assert power.amplitude == pytest.approx(4, rel=0.2)
    assert power.batch_exponent == pytest.approx(1, abs=0.01)
    assert fit_optimum(planted()).power_schedule() is None  # its batch is not known


def test_at_a_given_batch_the_best_rate_is_the_valley_s_there():
    fit = fit_optimum(planted(batches=True, skew=0.0))
    free = fit.predict(params=4e6, tokens=8e8)
    given = fit.predict(params=4e6, tokens=8e8, batch_tokens=2 * free.batch_tokens)
    assert given.lr / free.lr == pytest.approx(2 ** (0.006 / 2 / 0.015), rel=0.05)  # of .015 u^2 - .006 u v
    assert given.batch_tokens == 2 * free.batch_tokens


def test_intervals_hold_the_optimum_of_a_new_size_as_often_as_they_say():
    held = []
    for seed in range(40):
        fit = fit_optimum(planted(seed, scatter=0.1), allow_extrapolation=True)
        truth = 30 * 64e6**-0.6 * 32e8**-0.3 * np.exp(0.1 * np.random.default_rng(1000 + seed).normal())
        best = fit.predict(params=64e6, tokens=32e8)
        held.append(best.lr_low <= truth <= best.lr_high)
    assert 0.8 <= np.mean(held) <= 1.0


def test_larger_grids_are_held_out():
    fit = fit_optimum(planted(batches=True))
    assert fit.backtest
    assert all(h.gap > 1 and h.regret < 1e-3 for h in fit.backtest)


def test_diverged_runs_are_left_out_and_counted():
    table = planted()
    high = table.groupby(["params", "tokens"])["lr"].idxmax()
    table.loc[high, "loss"] = [np.nan, np.inf, 50.0] * 3
    fit = fit_optimum(table)
    assert any(w.startswith("left out 9 runs whose loss is no number below 20") for w in fit.warnings)
    assert fit.laws["lr"].exponents["params"] == pytest.approx(-0.6, abs=0.03)


def test_the_optimum_of_published_grids_is_predicted_from_the_small_ones():
    """Step Law (arXiv 2503.04715): cells below 1e20 FLOPs against each larger cell's own quadratic within 2%."""
    if not PUBLISHED.exists():
        pytest.skip("no published grids here")
    table = pd.read_csv(PUBLISHED).rename(columns={"params_nonembedding": "params"})
    table["batch_tokens"] = 2048.0 * table["batch_sequences_of_2048"]
    compute = 6.0 * table["params"] * table["tokens"]
    fit = fit_optimum(table[compute < 1e20])
    excess = []
    for (n, d), cell in table[compute >= 1e20].groupby(["params", "tokens"]):
        near = cell[np.log(cell["loss"]) < np.log(cell["loss"].min()) + 0.02]
        x, y = np.log(near["lr"]), np.log(near["batch_tokens"])
        u, v = x - x.mean(), y - y.mean()
        design = np.stack([np.ones_like(u), u, v, u * u / 2, u * v, v * v / 2], axis=1)
        _, a, b, *h = np.linalg.lstsq(design, np.log(near["loss"]), rcond=None)[0]
        steep = np.array([[h[0], h[1]], [h[1], h[2]]])
        own = -np.linalg.solve(steep, [a, b])
        best = fit.predict(params=float(n), tokens=float(d))
        off = np.log([best.lr, best.batch_tokens]) - own - [x.mean(), y.mean()]
        excess.append(100 * off @ steep @ off / 2)
    assert len(excess) == 7
    assert np.mean(excess) <= 0.03
    assert np.max(excess) <= 0.08


def test_a_saved_fit_predicts_the_same(tmp_path):
    fit = fit_optimum(planted(batches=True))
    fit.save(tmp_path / "optimum.json")
    again = load_fit(tmp_path / "optimum.json")
    assert again.predict(params=16e6, tokens=32e8) == fit.predict(params=16e6, tokens=32e8)
    assert again.summary() == fit.summary()


def median(table):
    return table.groupby(["params", "tokens"])["lr"].transform("median")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t[t["lr"] > 1.5 * median(t)], "smallest lr of .* add lr"),
        (lambda t: t[t["lr"] < 0.7 * median(t)], "largest lr of .* add lr"),
        (lambda t: t.groupby(["params", "tokens"]).head(1), "at least 3 values"),
        (lambda t: t.assign(loss=np.nan), "all 63 runs diverged; add smaller learning rates"),
    ],
    ids=["edge low", "edge high", "one rate", "all diverged"],
)
def test_what_cannot_answer_is_refused_with_what_to_add(change, says):
    with pytest.raises(Refusal, match=says):
        fit_optimum(change(planted()))


def test_a_law_needs_as_many_grids_as_it_has_parameters():
    table = pd.concat([planted(sizes=(1e6,), lengths=(2e8,)), planted(sizes=(16e6,), lengths=(8e8,))])
    with pytest.raises(Refusal, match="no exponent of it is known"):
        fit_optimum(table).predict(params=1e6, tokens=8e8)


def test_one_length_does_not_answer_for_another():
    fit = fit_optimum(planted(lengths=(8e8,)))
    assert fit.predict(params=16e6, tokens=8e8).lr > 0
    with pytest.raises(Refusal, match=r"tokens=3.2e\+09: .* add grids of learning rates at other tokens"):
        fit.predict(params=16e6, tokens=3.2e9)


def test_far_beyond_the_grids_is_refused_unless_asked_for():
    fit = fit_optimum(planted())
    with pytest.raises(Refusal, match="beyond the largest grid"):
        fit.predict(params=16e9, tokens=32e11)
    assert fit_optimum(planted(), allow_extrapolation=True).predict(params=16e9, tokens=32e11).note.startswith("EXTRA")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda t: t.drop(columns="lr"), "no column lr"),
        (lambda t: t.drop(columns="tokens"), "only params"),
        (lambda t: t.assign(lr=0.0), "lr in row 1 is 0"),
    ],
)
def test_a_wrong_table_is_named(wrong, says):
    with pytest.raises(RequestError, match=says):
        fit_optimum(wrong(planted()))


def test_the_command_line_fits_and_predicts(tmp_path, capsys, monkeypatch):
    from proxytrain.cli.main import main

    monkeypatch.chdir(tmp_path)
    planted(batches=True).to_csv("runs.csv", index=False)
    assert main(["fit", "table=runs.csv", "fit.law=optimum", "file=best.json"]) == 0
    assert "learning rate = " in capsys.readouterr().out
    assert Path("best_optimum.png").stat().st_size > 10_000
    assert main(["predict", "file=best.json", "params=16M", "tokens=3.2B", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["lr_low"] < answer["lr"] < answer["lr_high"]
    assert main(["predict", "file=best.json", "params=16M"]) == 2
    assert "give both" in capsys.readouterr().err
