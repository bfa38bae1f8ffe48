"""Recipes of a sweep against each other, each at its own best rate, on the page and in the words of the command."""

from __future__ import annotations

import pytest

from proxytrain.launch.machine import machine
from proxytrain.monitor.console import Console
from proxytrain.plan import speed
from proxytrain.report.facts import collect
from proxytrain.report.page import render
from proxytrain.sweep.main import plan, train

GRIDS = "[{model.width: 16, schedule: [wsd, average], tokens: [4K, 8K], lr: [0.002, 0.03, 0.2], init_seed: [0, 1]}]"
BOTH = "[{model.width: 16, optimizer: [adamw, muon], tokens: 8K, lr: [0.002, 0.03, 0.2], init_seed: [0, 1]}]"
SHORT = ["warmup=2K", "data.val_tokens=2048"]


@pytest.fixture(scope="module")
def schedules(asking):
    asked = asking("endings", GRIDS, "null", *SHORT)
    assert train(asked, plan(asked), Console(quiet=True)) == 0
    return asked


@pytest.fixture(scope="module")
def optimizers(asking):
    asked = asking("two_optimizers", BOTH, "null", *SHORT)
    assert train(asked, plan(asked), Console(quiet=True)) == 0
    return asked


def test_schedules_are_ranked_at_equal_tokens_only_since_all_else_is_equal(schedules):
    found = collect(schedules).standing
    (ranking,) = found.rankings
    assert set(ranking.names) == {"wsd", "average"}
    assert (len(ranking.cells), ranking.seeds) == (2, 2)
    shared, alone = found.tokens["average"]
    assert alone == 2 * 3 * (4096 + 8192) > shared
    page, figures = render(collect(schedules))
    assert 'id="standing"' in page
    assert "Places at equal tokens" in page
    assert {"standing.svg", "standing.png"} <= set(figures)


def test_optimizers_are_ranked_at_equal_device_time_once_it_is_measured(optimizers):
    facts = collect(optimizers)
    assert [r.budget for r in facts.standing.rankings] == ["tokens"]
    assert set(facts.standing.rankings[0].names) == {"adamw", "muon"}
    assert any(what == "ranking at equal device time" and "proxytrain probe" in why for what, why in facts.missing)
    here = machine(optimizers.config).name
    shapes = {run.recipe.shape: run.recipe.optimizer.name for run in optimizers.runs}
    seconds = {"adamw": speed.UpdateSpeed(seconds=1.0), "muon": speed.UpdateSpeed(seconds=1.5)}
    took = {f"{shape}/4/eager": seconds[name] for shape, name in shapes.items()}
    speed.keep(optimizers.store, here, speed.MachineSpeed(updates=took))
    known = [(what, why) for what, why in collect(optimizers).missing if what == "ranking at equal device time"]
    assert "no seconds that all of" in known[0][1]  # one length each, of different seconds


def test_a_sweep_at_one_rate_compares_nothing(swept):
    facts = collect(swept)
    assert facts.standing is None
    assert not any("ranking" in what for what, _ in facts.missing)


def test_the_command_says_who_is_better(schedules):
    from proxytrain.cli.jobs import _compared

    _, (ranking,) = _compared(schedules)
    assert ranking.summary()[0].startswith("at equal tokens, each at its own best rate (2 cells, 2 seeds)")
    assert {r["name"] for r in ranking.content()["recipes"]} == {"wsd", "average"}
