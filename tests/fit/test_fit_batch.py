"""Critical batch: the hyperbolas are what they are said to be, planted constants come back, few batches are refused."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from proxytrain.analysis.critical_batch import fit_critical_batch
from proxytrain.errors import Refusal, RequestError

B_STAR, ALPHA_B, E, S_C, ALPHA_S = 1.7e8, 0.205, 1.6, 3e3, 0.6
BATCHES = (1e5, 3e5, 1e6, 3e6, 1e7)


def critical(loss):
    return B_STAR * loss ** (-1 / ALPHA_B)


def curves(seed=0, sd=0.003, batches=BATCHES, size_term=0.0, every=50, last=60000):
    """Noisy curves on one trajectory: the loss after S updates is where S_min (1 + B_crit / B) is S."""
    rng, rows = np.random.default_rng(seed), []
    for batch in batches:
        steps = np.arange(every, last + 1, every, dtype=float)
        low, high = np.full(len(steps), E + size_term), np.full(len(steps), 19.0)
        for _ in range(60):
            middle = (low + high) / 2
            with np.errstate(divide="ignore"):
                late = S_C * (middle - E - size_term) ** (-1 / ALPHA_S) * (1 + critical(middle) / batch) > steps
            low, high = np.where(late, middle, low), np.where(late, high, middle)
        rows.append(np.c_[np.full(len(steps), batch), steps, high * np.exp(sd * rng.standard_normal(len(steps)))])
    return dict(zip(("batch_tokens", "step", "loss"), np.concatenate(rows).T))


@pytest.fixture(scope="module")
def fitted():
    return fit_critical_batch(curves())


def test_at_the_critical_batch_it_takes_twice_the_fewest_updates_and_tokens(fitted):
    batch = fitted.critical_batch(3.0)[0]
    fewest, least = fitted.fewest(3.0)
    assert fitted.steps(3.0, batch) == pytest.approx(2 * fewest)
    assert fitted.steps(3.0, batch) * batch == pytest.approx(2 * least)


def test_endless_batches_take_the_fewest_updates_and_tiny_ones_the_fewest_tokens(fitted):
    fewest, least = fitted.fewest(3.0)
    assert fitted.steps(3.0, 1e15) == pytest.approx(fewest, rel=1e-6)
    assert fitted.steps(3.0, 1e-3) * 1e-3 == pytest.approx(least, rel=1e-6)


def test_updates_and_tokens_lie_on_a_hyperbola(fitted):
    fewest, least = fitted.fewest(2.8)
    for batch in (1e4, 1e6, 1e8):
        s = fitted.steps(2.8, batch)
        assert (s / fewest - 1) * (s * batch / least - 1) == pytest.approx(1.0, rel=1e-6)


def test_planted_constants_lie_in_their_intervals():
    inside = {"b_star": 0, "alpha_b": 0, "critical": 0}
    for seed in range(20):
        fit = fit_critical_batch(curves(seed, every=200))
        for key, true in (("b_star", B_STAR), ("alpha_b", ALPHA_B)):
            inside[key] += fit.intervals[key][0] < true < fit.intervals[key][1]
        _, low, high = fit.critical_batch(3.0)
        inside["critical"] += low < critical(3.0) < high
    assert all(count >= 15 for count in inside.values())
    assert fit.critical_batch(3.0)[0] == pytest.approx(critical(3.0), rel=0.1)


def test_the_trajectory_is_found_and_its_loss_is_the_steps_turned_round(fitted):
    assert fitted.trajectory["alpha_S"] == pytest.approx(ALPHA_S, rel=0.05)
    assert fitted.trajectory["S_c"] == pytest.approx(S_C, rel=0.1)
    assert fitted.loss(fitted.steps(2.7, 5e5), 5e5) == pytest.approx(2.7, rel=1e-6)


def test_several_sizes_share_the_critical_batch_and_have_their_own_floors():
    parts = []
    for n in (1e6, 1e7, 1e8):
        table = curves(int(n), sd=1e-3, every=200, size_term=30 * n**-0.3)
        parts.append(table | {"params": np.full(len(table["loss"]), n)})
    fit = fit_critical_batch({c: np.concatenate([p[c] for p in parts]) for c in parts[0]})
    assert fit.trajectory["alpha_N"] == pytest.approx(0.3, rel=0.05)
    assert fit.critical_batch(3.0)[0] == pytest.approx(critical(3.0), rel=0.1)
    assert fit.fewest(2.6, params=1e8)[0] < fit.fewest(2.6, params=1e7)[0]
    with pytest.raises(RequestError, match="params=None"):
        fit.fewest(2.6)


def test_two_batch_sizes_are_too_few():
    with pytest.raises(Refusal, match="2 batch sizes"):
        fit_critical_batch(curves(batches=(1e5, 1e6)))


def test_one_loss_is_too_few():
    with pytest.raises(Refusal, match="fewer than two losses"):
        fit_critical_batch(curves(every=200), losses=[3.0])


def test_batches_all_on_one_side_of_the_critical_one_do_not_show_it():
    """Noise-free updates that do not depend on the batch: any of them is beyond the critical one."""
    steps = np.arange(100.0, 20000, 100)
    table = {
        "batch_tokens": np.repeat([1e5, 1e6, 1e7], len(steps)),
        "step": np.tile(steps, 3),
        "loss": np.tile(2 + (1000 / steps) ** 0.5, 3),
    }
    with pytest.raises(Refusal, match="smaller batches"):
        fit_critical_batch(table)


def test_a_column_that_is_missing_or_a_loss_that_cannot_be_is_named():
    table = curves(every=1000)
    with pytest.raises(RequestError, match="no column batch_tokens"):
        fit_critical_batch({"step": table["step"], "loss": table["loss"]})
    table["loss"][3] = 300
    with pytest.raises(RequestError, match="loss in row 4 is 300"):
        fit_critical_batch(table)


def test_curves_are_read_until_their_rate_falls(tmp_path):
    """The same runs as a folder of curves, each with a decay at its end that lowers the loss."""
    table, index = pd.DataFrame(curves(every=100)), []
    for batch, rows in table.groupby("batch_tokens"):
        steady = len(rows) * 4 // 5
        lr = np.where(np.arange(len(rows)) < steady, 1e-3, 1e-4)
        loss = rows.loss * np.where(np.arange(len(rows)) < steady, 1.0, 0.9)
        pd.DataFrame({"step": rows.step, "lr": lr, "loss": loss}).to_csv(tmp_path / f"b{batch:.0f}.csv", index=False)
        index.append((f"b{batch:.0f}", 1e6, batch))
    pd.DataFrame(index, columns=["run", "params", "tokens_per_step"]).to_csv(tmp_path / "index.csv", index=False)
    fit = fit_critical_batch(tmp_path)
    assert fit.critical_batch(3.0)[0] == pytest.approx(critical(3.0), rel=0.1)
    assert not [w for w in fit.warnings if "left out" in w or "falls early" in w]


def test_the_command_line_writes_what_it_found(tmp_path):
    pd.DataFrame(curves(every=500)).to_csv(tmp_path / "curves.csv", index=False)
    command = [sys.executable, "-m", "proxytrain", "fit", "table=curves.csv", "fit.law=critical_batch", "file=b.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "B_crit" in done.stdout
    assert json.loads((tmp_path / "b.json").read_text())["b_star"] == pytest.approx(B_STAR, rel=0.5)


def test_a_critical_batch_that_does_not_grow_is_saved_without_an_end(tmp_path):
    rng, rows = np.random.default_rng(0), []
    for batch in BATCHES:
        steps = np.arange(1000, 100000, 100, dtype=float)
        loss = E + (S_C * (1 + 1e6 / batch) / steps) ** ALPHA_S
        rows.append(np.c_[np.full(len(steps), batch), steps, loss * np.exp(0.01 * rng.standard_normal())])
    fit = fit_critical_batch(dict(zip(("batch_tokens", "step", "loss"), np.concatenate(rows).T)))
    assert any("alpha_B may be without end" in w for w in fit.warnings)
    fit.save(tmp_path / "critical_batch.json")
    written = json.loads((tmp_path / "critical_batch.json").read_text())
    assert written["intervals"]["alpha_b"][1] is None
    assert [p.name for p in tmp_path.iterdir()] == ["critical_batch.json"]
