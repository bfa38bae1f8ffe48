"""Runs of other schedules and of other groups: they help where they can, and are left out aloud where they cannot."""

import numpy as np
import pytest
from fit_tables import chinchilla

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit import fit_losses, load_fit


def two_schedules(seed=0, offset=0.03, sd=0.002):
    """A target's schedule on a few runs, another on a full grid: the same law up to a factor."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5)))
    few = slice(0, 25, 3)
    rng = np.random.default_rng(seed)
    size, length = np.r_[n[few], n], np.r_[d[few], d]
    schedule = np.array(["wsd"] * len(n[few]) + ["cosine"] * 25)
    loss = chinchilla(size, length) * np.exp(offset * (schedule == "cosine") + sd * rng.standard_normal(len(size)))
    return {"params": size, "tokens": length, "schedule": schedule, "loss": loss}


def test_a_schedules_offset_is_found_with_its_error():
    found = []
    for seed in range(5):
        fit = fit_losses(two_schedules(seed), law="chinchilla", schedule="wsd", bootstraps=60)
        found.append((fit.params["offset@cosine"] - 0.03) / fit.stderr["offset@cosine"])
        assert 0.0002 < fit.stderr["offset@cosine"] < 0.003
    assert np.abs(found).max() < 3


def test_runs_of_another_schedule_make_the_prediction_better():
    """Nine runs of the target's schedule alone, and with 25 of another: nearer to the truth."""
    apart, together = [], []
    for seed in range(6):
        table = two_schedules(seed)
        own = {k: v[table["schedule"] == "wsd"] for k, v in table.items()}
        for part, errors in ((own, apart), (table, together)):
            fit = fit_losses(part, "chinchilla", schedule="wsd", bootstraps=20, allow_extrapolation=True)
            errors.append(np.log(fit.predict(1e10, 1e12).loss / chinchilla(1e10, 1e12)))
    assert np.std(together) < np.std(apart)
    assert np.abs(together).max() < 0.02


def test_held_out_runs_are_those_of_the_schedule_that_is_predicted():
    table = two_schedules()
    rows = {r["row"] for r in fit_losses(table, "chinchilla", schedule="wsd", bootstraps=20).backtest}
    assert rows
    assert all(table["schedule"][r - 1] == "wsd" for r in rows)


def test_an_offset_that_looks_like_a_trend_is_not_fitted(grid):
    """All runs of the other schedule are larger than any of the target's."""
    small = grid["params"] < 1e8
    table = {**grid, "schedule": np.where(small, "wsd", "cosine")}
    rest = {k: np.r_[v, v[small]] for k, v in table.items()}
    fit = fit_losses(rest | {"params": rest["params"] * (1 + 0.3 * (np.arange(35) >= 25))}, "tied", schedule="wsd")
    assert "offset@cosine" not in fit.params
    assert any("left out 15 runs of schedule cosine" in w for w in fit.warnings)


def test_an_offset_that_goes_with_size_is_warned_of():
    def warned(table):
        fit = fit_losses(table, "chinchilla", schedule="wsd", bootstraps=20)
        return any("not one number" in w for w in fit.warnings)

    table = two_schedules(sd=0.0005)
    assert not warned(table)
    other = table["schedule"] == "cosine"
    table["loss"] = table["loss"] * np.where(other, (table["params"] / 1e8) ** 0.01, 1.0)
    assert warned(table)


def test_a_fit_with_an_offset_is_kept_and_read_back(tmp_path):
    fit = fit_losses(two_schedules(), law="chinchilla", schedule="wsd", bootstraps=20)
    fit.save(tmp_path / "fit.json")
    again = load_fit(tmp_path / "fit.json")
    assert again.predict(2e9, 1e11) == fit.predict(2e9, 1e11)
    assert again.params == fit.params


def groups(alpha=(0.35, 0.35), sd=0.002, seed=0):
    """Two texts with factors of their own, and exponents as given."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 4)))
    one = chinchilla(n, d, alpha=alpha[0])
    two = chinchilla(n, d, E=1.2, A=480.0 * 1.5 * 1e8 ** (alpha[1] - 0.35), B=900.0, alpha=alpha[1])
    loss = np.r_[one, two] * np.exp(sd * np.random.default_rng(seed).standard_normal(40))
    return {"params": np.r_[n, n], "tokens": np.r_[d, d], "group": np.repeat(["web", "code"], 20), "loss": loss}


def test_groups_have_their_own_factors_and_one_shape():
    fit = fit_losses(groups(sd=1e-5), law="shared_exponents", group="code", bootstraps=20)
    assert fit.params["alpha"] == pytest.approx(0.35, rel=0.01)
    assert fit.params["A@code"] / fit.params["A@web"] == pytest.approx(1.5, rel=0.01)
    assert fit.predict(2e9, 1e11).loss == pytest.approx(chinchilla(2e9, 1e11, E=1.2, A=720.0, B=900.0), rel=1e-3)


def test_a_group_with_few_runs_is_carried_by_the_others():
    table = groups(sd=1e-4)
    keep = (table["group"] == "web") | (np.arange(40) % 6 == 0)
    few = {k: v[keep] for k, v in table.items()}
    truth = chinchilla(4e9, 2e11, E=1.2, A=720.0, B=900.0)
    fit = fit_losses(few, law="shared_exponents", group="code", bootstraps=20, allow_extrapolation=True)
    assert fit.predict(4e9, 2e11).loss == pytest.approx(truth, rel=0.005)
    assert "missing" in fit.data.own_exponents
    with pytest.raises(Refusal):
        fit_losses(few, law="chinchilla", group="code")


def test_equal_exponents_pass_the_test_and_unequal_ones_do_not():
    same = [fit_losses(groups(seed=s), "shared_exponents", bootstraps=20).data.own_exponents["p"] for s in range(4)]
    other = fit_losses(groups((0.35, 0.22)), law="shared_exponents", bootstraps=20).data.own_exponents
    assert np.median(same) > 0.05
    assert other["p"] < 0.02
    assert other["own"]["code"]["alpha"] < other["own"]["web"]["alpha"]


def test_the_verdict_on_shared_exponents_is_in_the_summary():
    lines = fit_losses(groups(), law="shared_exponents", bootstraps=20).summary()
    assert any("shared exponents" in line and "p =" in line for line in lines)


def test_a_law_without_groups_reads_one_group_and_says_so():
    fit = fit_losses(groups(), law="chinchilla", group="code", bootstraps=20)
    assert len(fit.runs["row"]) == 20
    assert any("left out 20 runs of other groups" in w for w in fit.warnings)


def test_a_group_that_is_not_there_is_named():
    with pytest.raises(RequestError, match=r"fit\.group='books'"):
        fit_losses(groups(), group="books")


def test_groups_need_a_column():
    table = groups()
    table.pop("group")
    with pytest.raises(Refusal, match="column group"):
        fit_losses(table, law="shared_exponents")
