"""schedule=average: the result is that of the mean of the last part's weights, and training is that of the trunk."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from safetensors.numpy import load_file
from support import assert_same_bits, outcome, planned, train

from proxytrain import load_model
from proxytrain.errors import Refusal
from proxytrain.monitor.console import Console
from proxytrain.sweep.branch import branch
from proxytrain.sweep.results import curves, target_rates
from proxytrain.train.loop import Interrupted

WINDOW = ["schedule=average", "schedule.window=2048", "schedule.snapshots=4"]  # of 8192 tokens
COUNTED = [6656, 7168, 7680, 8192]


def weights(store, run_id: str) -> dict[str, np.ndarray]:
    return load_file(store.run(run_id) / "weights.safetensors")


@pytest.mark.parametrize("half_life", ["null", "1024"])
def test_it_is_the_mean_of_the_weights_that_the_trunk_has_there(ask, half_life):
    trunk = ask("schedule=constant", f"sweep.grids=[{{tokens:{COUNTED}}}]".replace(" ", ""))
    train(trunk)
    asked = ask(*WINDOW, f"schedule.half_life={half_life}", "sweep.name=mean")
    train(asked)
    (run,) = asked.runs
    ages = 8192 - np.array(COUNTED)
    share = np.ones(4) if half_life == "null" else 0.5 ** (ages / 1024)
    snapshots = [weights(trunk.store, r.id) for r in sorted(trunk.runs, key=lambda r: r.tokens)]
    for name, got in weights(asked.store, run.id).items():
        want = np.average([s[name].astype(np.float64) for s in snapshots], axis=0, weights=share)
        assert got == pytest.approx(want, rel=1e-6, abs=1e-9)
    assert asked.store.result(run.id).final_loss != trunk.store.result(trunk.runs[-1].id).final_loss
    a, b = (asked.store.curve(r.id) for r in (run, trunk.runs[-1]))
    assert np.array_equal(a.loss, b.loss)
    assert np.array_equal(a.lr, b.lr)
    assert load_model(run.id, asked.store)


def test_the_mean_of_weights_that_stand_still_is_themselves(ask):
    still = ["lr=1e-30", "optimizer.weight_decay=0", "parametrization.readout_std=1"]
    first, second = (ask(*still, *how) for how in (["schedule=constant"], [*WINDOW, "sweep.name=mean"]))
    train(first)
    train(second)
    losses = [a.store.result(a.runs[0].id).final_loss for a in (first, second)]
    assert losses[0] == losses[1]


def test_neither_pack_nor_interruptions_change_a_bit(ask, tmp_path):
    grid = "sweep.grids=[{tokens:[4096,8192],init_seed:[0,1],schedule:[average,wsd]}]"
    asked = ask(grid, "train.checkpoint_seconds=1e9", "sweep.name=broken")
    made = planned(asked, largest=3)
    stops = 0
    for _ in range(1000):
        left = itertools.count(3, -1)
        try:
            train(asked, made, should_stop=lambda left=left: next(left) <= 1)
            break
        except Interrupted:
            stops += 1
    assert stops > 10
    whole = ask(grid, store=tmp_path / "whole")
    train(whole, largest=1)
    for run in asked.runs:
        assert_same_bits(outcome(asked.store, run.id), outcome(whole.store, run.id))
        a, b = (weights(s, run.id) for s in (asked.store, whole.store))
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_it_branches_from_a_trained_trunk_and_trains_its_window_only(ask):
    old = ask("sweep.name=old", "tokens=10240")  # wsd, its trunk 8192 long
    train(old)
    how = [f"store={old.store.root}", "train.eval_every=4096", "train.eval_tokens=1024", "train.device=cpu"]
    new = branch(old.runs[0].id, [*how, *WINDOW, "tokens=10240"], None, Console(quiet=True))
    made = planned(new)
    assert sum(m.tokens for p in made.packs for m in p.members) == 2048
    train(new, made)
    assert new.store.result(new.runs[0].id).status == "done"


def test_laws_of_curves_leave_it_alone(ask):
    asked = ask(*WINDOW)
    train(asked)
    with pytest.raises(Refusal, match="no finished run"):
        curves(asked.store, asked.records)
    with pytest.raises(Refusal, match="schedule=average"):
        target_rates(asked.runs[0])


def test_plans_know_what_the_mean_takes(ask):
    from proxytrain.plan import cost

    plain, mean = (planned(ask(*how)).packs for how in (["schedule=constant"], WINDOW))
    assert max(cost.memory(p, 1, "cpu") for p in mean) > max(cost.memory(p, 1, "cpu") for p in plain)
    assert cost.checkpoints(mean, 1) > cost.checkpoints(plain, 1)
