"""Collapse on the page: of a sweep whose sizes were trained to one ratio of tokens to parameters, and of no other."""

import dataclasses
import re

import numpy as np
import pytest
from msgspec.structs import replace

from proxytrain import collapse
from proxytrain.monitor.console import Console
from proxytrain.report.collapse import collapsed
from proxytrain.report.facts import Facts, collect
from proxytrain.report.page import render
from proxytrain.sweep.main import plan, train
from proxytrain.sweep.results import curves

GRID = """
    - {model.width: 16, warmup: 2560, init_seed: [0, 1]}
    - {model.width: 24, warmup: 5376, init_seed: [0, 1]}
    - {model.width: 32, warmup: 9984, init_seed: [0, 1]}
"""
HOW = ("schedule=linear", "tokens=null", "tokens_per_param=8", "lr=0.008")


@pytest.fixture(scope="module")
def trained(asking) -> Facts:
    asked = asking("collapse", GRID, "null", *HOW)
    assert train(asked, plan(asked), Console(quiet=True)) == 0
    return collect(asked)


def test_it_is_that_of_the_runs_own_curves(trained):
    want = collapse(curves(trained.asked.store, trained.asked.records))
    found = trained.collapse
    assert list(found.curves) == sorted({float(r.params) for r in trained.rows})
    assert found.share == want.share
    assert np.array_equal(found.across_sizes, want.across_sizes)


def test_the_page_shows_the_figure_and_says_the_verdict(trained):
    page, figures = render(trained)
    assert 'id="figure-collapse"' in page
    assert figures["collapse.png"].startswith(b"\x89PNG")
    text = re.sub(r"<[^>]+>", " ", page)
    assert re.search(r"Collapse\s+(supercollapse|collapse|no collapse).*: normalised curves of 3 sizes differ by", text)
    assert re.search(r"L0 [\d.]+ nats, where the curves are closest; final losses alone say [\d.]+ \([\d.]+ to", text)


def test_other_sweeps_show_nothing(trained, swept, page):
    assert collect(swept).collapse is None
    assert "figure-collapse" not in page
    assert "figure-collapse" not in render(dataclasses.replace(trained, collapse=None))[0]


def test_sizes_that_are_not_finished_do_not_count(trained):
    records = [r for r in trained.asked.records if r.config.model.width != 32]
    waiting = [replace(r, id="0000") for r in trained.asked.records if r.config.model.width == 32]
    assert collapsed([*records, *waiting], trained.asked.store) is None


def test_a_warm_up_of_another_share_is_another_schedule(asking):
    asked = asking("uneven", "[{model.width: [16, 24, 32]}]", "null", *HOW)
    assert train(asked, plan(asked), Console(quiet=True)) == 0
    assert collect(asked).collapse is None
