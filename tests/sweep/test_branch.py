"""A branch is the run that would have been trained by itself, from the trunk of one that was."""

from __future__ import annotations

import pytest
from support import TINY, TINY_TEXT, assert_same_bits, outcome, planned, train

from proxytrain.errors import RequestError
from proxytrain.monitor.console import Console
from proxytrain.sweep.branch import branch


@pytest.fixture
def trained(ask):
    """One WSD run of 8192 tokens, its trunk 6656 long."""
    asked = ask("sweep.name=old", "optimizer.weight_decay=0.01", "init_seed=3")
    train(asked)
    return asked


def branched(asked, *overrides):
    how = [o for o in TINY if o.startswith("train.")]  # evaluations are no part of a run
    return branch(asked.runs[0].id, [f"store={asked.store.root}", *how, *overrides], None, Console(quiet=True))


@pytest.mark.parametrize(
    "ending",
    [["tokens=16384"], ["schedule=wsd", "schedule.decay=0.1"], ["schedule=constant", "tokens=10240"]],
    ids=" ".join,
)
def test_a_branch_has_the_bits_of_the_run_trained_by_itself(trained, ending, ask, tmp_path):
    new = branched(trained, *ending)
    made = planned(new)
    assert sum(m.tokens for p in made.packs for m in p.members) < new.runs[0].tokens - 6000
    train(new, made)
    apart = ask("optimizer.weight_decay=0.01", "init_seed=3", *ending, store=tmp_path / "apart")
    assert apart.runs[0].id == new.runs[0].id
    train(apart)
    assert_same_bits(outcome(new.store, new.runs[0].id), outcome(apart.store, new.runs[0].id))


def test_a_branch_that_is_trained_costs_nothing_more(trained):
    new = branched(trained, "tokens=16384")
    train(new)
    assert not planned(branched(trained, "tokens=16384")).packs


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["lr=0.1"], "lr: a branch keeps all"),
        (["model.width=32"], "model.width: a branch keeps all"),
        (["schedule=cosine"], "shares no kept state with"),
        (["tokens=2048"], "shares no kept state with"),
        (["tokens=1"], "shorter than one update"),
    ],
)
def test_what_is_no_branch_is_refused(trained, overrides, says):
    with pytest.raises(RequestError, match=says):
        branched(trained, *overrides)


def test_a_branch_from_a_trunk_that_is_gone_says_so(trained):
    for state in trained.store.root.glob("segments/*/*/state.npy"):
        state.unlink()
    with pytest.raises(RequestError, match="the states of its trunk are gone"):
        branched(trained, "tokens=16384")


def test_a_run_that_does_not_exist_is_named(trained):
    with pytest.raises(RequestError, match="0123456789abcdef: no such run"):
        branch("0123456789abcdef", [f"store={trained.store.root}"], None, Console(quiet=True))


def test_the_command_line_branches(trained, monkeypatch, capsys):
    from proxytrain.cli.main import main

    asked = trained.runs[0].id
    assert main(["branch", asked, f"store={trained.store.root}", "tokens=12288", "launch.workers=1", "--quiet"]) == 0
    assert "loss " in capsys.readouterr().out
    assert main(["branch", "tokens=12288", *TINY_TEXT, *TINY]) == 2
    assert "say which run to branch from" in capsys.readouterr().err
