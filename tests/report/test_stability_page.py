"""Stability on the page: what the store's files say of rates that span a decade, and what cannot be said."""

import dataclasses
import math
import re

import numpy as np
import pytest

from proxytrain.analysis.stability import fit_logits, lr_sensitivity
from proxytrain.monitor.console import Console
from proxytrain.report import stability as lab
from proxytrain.report import words
from proxytrain.report.facts import Facts, collect
from proxytrain.report.page import render
from proxytrain.report.row import Row
from proxytrain.sweep.main import plan, train

RATES = [0.003, 0.03, 0.3]
GRID = f"[{{model: {{width: [16, 32], qk_norm: [true, false]}}, lr: {RATES}, init_seed: [0, 1], tokens: 8K}}]"


@pytest.fixture(scope="module")
def trained(asking) -> Facts:
    asked = asking("lab", GRID, "null", "train.telemetry_every=2", "optimizer.clip=null")
    assert train(asked, plan(asked), Console(quiet=True)) == 0
    return collect(asked)


def listed(facts: Facts) -> list[Row]:
    """Rows as the sweep lists its runs."""
    by_id = {r.id: r for r in facts.rows}
    return [by_id[run.id] for run in facts.asked.runs]


def test_sensitivities_are_those_of_the_runs(trained):
    found = trained.stability
    assert [g.name for g in found.groups] == ["common setting", "qk_norm=False"]
    assert found.size == (32, 1)
    for g, norm in zip(found.groups, (True, False)):
        runs = [r for r in trained.asked.runs if r.recipe.model.qk_norm == norm and r.recipe.model.width == 32]
        losses = [trained.asked.store.result(r.id).final_loss or math.nan for r in runs]
        want = lr_sensitivity([r.lr for r in runs], losses, math.log(256), [r.recipe.init_seed for r in runs])
        assert g.sensitivity[32, 1].value == pytest.approx(want.value, rel=1e-5)
        assert g.sensitivity[32, 1].low == pytest.approx(want.low, rel=1e-4)
    assert found.groups[1].change[32, 1][0] == pytest.approx(
        found.groups[1].sensitivity[32, 1].value - found.groups[0].sensitivity[32, 1].value
    )
    by_rate = {g.name: [max(s.logit for s in g.logits(lr)) for lr in RATES] for g in found.groups}
    assert by_rate["qk_norm=False"][-1] > 3 * max(by_rate["common setting"])


def test_the_page_shows_them_and_says_what_two_sizes_cannot_tell(trained):
    page, figures = render(trained)
    for key in ("interventions", "logits", "logits-largest", "stability"):
        assert f'id="figure-{key}"' in page
        assert figures[f"{key}.png"].startswith(b"\x89PNG")
    text = re.sub(r"<[^>]+>", " ", page)
    assert re.search(r"LR sensitivity\s+width 32: \d\.\d{3} \(.* to .*\) nats above the best rate on average", text)
    assert "their growth is not known: the growth of attention logits needs at least 3 sizes" in text
    assert "add values of model.width" in text


def test_runs_that_nobody_looked_at_say_so(trained):
    blind = [
        dataclasses.replace(
            g, runs={n: [dataclasses.replace(s, logit=None) for s in found] for n, found in g.runs.items()}
        )
        for g in trained.stability.groups
    ]
    facts = dataclasses.replace(trained, stability=dataclasses.replace(trained.stability, groups=blind))
    page, figures = render(facts)
    assert "not known: these runs were trained with train.telemetry_every=0" in page
    assert "logits.png" not in figures
    assert "stability.png" in figures


def test_rates_within_a_decade_are_no_test_of_stability(trained):
    rows = [r for r in listed(trained) if r.lr != 0.3]
    assert lab.stability(rows, trained.asked.store, 256, []) is None


def test_a_diverged_run_counts_with_its_initial_loss(trained):
    rows = [dataclasses.replace(r, status="diverged", loss=None) if r.lr == 0.3 else r for r in listed(trained)]
    (first, _) = lab.stability(rows, trained.asked.store, 256, []).groups
    found = first.sensitivity[32, 1]
    assert found.lost == 2
    assert found.value > trained.stability.groups[0].sensitivity[32, 1].value
    assert {s.scored for s in first.runs[32, 1] if s.row.lr == 0.3} == {first.runs[32, 1][0].initial}


def test_a_curve_that_cannot_be_read_is_left_out(trained):
    missing: list[tuple[str, str]] = []
    first, *others = listed(trained)
    found = lab.stability([dataclasses.replace(first, id="0000"), *others], trained.asked.store, 256, missing)
    assert missing == []  # its curve is named elsewhere
    lacking = found.groups[0].sensitivity[16, 1]
    assert list(lacking.each) == ["1"]  # the seed that has all rates
    assert math.isnan(lacking.low)


def test_a_change_of_several_keys_is_named_by_all_and_a_default_by_none():
    def row(**other: str) -> Row:
        return Row("a", 32, 2, 1000, 2000, 1000, "wsd", 0.1, 256, 0, 0, 1.0, "done", 2.0, other=tuple(other.items()))

    kinds = [(r.schedule, r.other) for r in (
        row(**{"model.qk_norm": "True"}), row(**{"model.qk_norm": "False"}), row(**{"model.qk_norm": "True"}),
        row(**{"model.qk_norm": "True", "optimizer.decay": "coupled", "optimizer.weight_decay": "0.1"}),
    )]  # fmt: skip
    assert list(lab._names(list(dict.fromkeys(kinds))).values()) == [
        "common setting", "qk_norm=False", "decay=coupled and weight_decay=0.1",
    ]  # fmt: skip


def test_words_of_a_crossing():
    n = np.repeat([1e4, 4e4, 16e4, 64e4], 2)
    noise = np.exp(0.05 * np.random.default_rng(0).standard_normal(8))
    grows = lab.crossing(fit_logits(n, 30 * (n / 1e4) * noise))
    number = r"[\d.]+M"
    assert re.fullmatch(
        rf"as params\^\d\.\d\d, crossing 10,000 at {number} parameters \(90%: {number} to {number}\)", grows
    )
    assert "no crossing of 10,000 up to 640M parameters" in lab.crossing(fit_logits(n, 3 * noise))


def test_the_target_s_logits_are_foreseen_and_warned_of(swept):
    facts = collect(swept)  # four widths, whose telemetry is that of the default interval
    assert facts.logits is not None
    value, low, high = facts.logits.predict(facts.target.params)
    assert 1 < low < value < high < 1e4
    text = dict(words.grounds(facts))["Largest logit"]
    assert text.startswith(f"{value:.3g} in the target's attention")
    assert not any("attention logits" in w for w in words.warnings(facts))
    n = np.repeat([1e3, 4e3, 16e3], 2)
    grows = dataclasses.replace(facts, logits=fit_logits(n, (n / 3) * np.array([0.9, 1.1] * 3)))
    (warning,) = [w for w in words.warnings(grows) if "attention logits" in w]
    assert warning.startswith("UNSAFE: The target's attention logits are expected to reach 10,000")
    assert "model.qk_norm=true" in warning
