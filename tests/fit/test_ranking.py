"""Fair comparisons: at each variant's own best rate, seed by seed, and better only beyond seed noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from proxytrain import Refusal, RequestError, rank

LENGTHS = (1e6, 2e6, 4e6)
RATES = (0.004, 0.008, 0.016, 0.032)


def law(tokens: float) -> float:
    return 2.0 + 40.0 * tokens**-0.3


def table(
    variants: dict[str, float],  # log loss against the law
    *,
    best: dict[str, float] | None = None,  # rates
    cost: dict[str, float] | None = None,  # FLOPs a token
    seeds: int = 3,
    shared: float = 0.01,
    own: float = 0.0005,
    random: int = 0,
    widths: tuple[int, ...] = (32, 64),
) -> dict[str, list]:
    """Losses with luck that runs of one size and seed share, and luck of their own."""
    generator = np.random.default_rng(random)
    rows: dict[str, list] = {c: [] for c in ("schedule", "width", "tokens", "lr", "init_seed", "flops", "loss")}
    for width, seed in itertools.product(widths, range(seeds)):
        luck = shared * generator.standard_normal()
        for name, offset in variants.items():
            trunk = own * generator.standard_normal()
            for lr, tokens in itertools.product(RATES, LENGTHS):
                valley = 0.02 * np.log(lr / (best or {}).get(name, 0.012)) ** 2
                noise = luck + trunk + own / 3 * generator.standard_normal()
                flops = tokens * (cost or {}).get(name, 1e6)
                loss = law(tokens) * np.exp(offset + valley + noise) * (width / 32) ** -0.1
                for column, value in zip(rows, (name, width, tokens, lr, seed, flops, loss)):
                    rows[column].append(value)
    return rows


def test_a_difference_below_the_luck_that_runs_share_is_found():
    found = rank(table({"wsd": 0.004, "cosine": 0.0, "power": 0.0}))
    assert found.names[2] == "wsd"
    assert found.better[:2, 2].all()
    assert found.ranks.tolist() == [[1, 2], [1, 2], [3, 3]]
    assert found.half < 0.003
    assert found.behind[2] == pytest.approx(0.004, abs=0.0015)
    assert (len(found.cells), found.seeds) == (6, 3)


def test_of_equal_variants_one_is_called_better_as_often_as_the_level_says():
    wrong = [rank(table(dict.fromkeys("abcd", 0.0), random=i), level=0.9).better.any() for i in range(150)]
    assert 0.03 < np.mean(wrong) < 0.18


def test_a_variant_is_seen_at_its_own_best_rate():
    found = rank(table({"a": 0.0, "b": 0.0}, best={"a": 0.008, "b": 0.02}, own=0.0))
    assert found.behind[1] < 1e-4
    assert {round(float(lr), 3) for c in found.cells for lr in c.lr} == {0.008, 0.02}


def test_at_equal_flops_a_cheaper_variant_has_more_tokens():
    runs = table({"muon": 0.0, "adamw": 0.0}, cost={"muon": 2e6}, own=0.0, shared=0.0)
    equal = rank(runs)
    assert equal.behind[1] < 1e-9
    found = rank(runs, budget="flops")
    assert found.names == ("adamw", "muon")
    assert {float(f"{c.budget:.6g}") for c in found.cells} == {2e12, 4e12}
    want = np.mean([np.log(law(d / 2) / law(d)) for d in (2e6, 4e6)])
    assert found.behind[1] == pytest.approx(want, rel=0.01)


def test_a_budget_between_lengths_is_read_off_a_parabola():
    found = rank(table({"a": 0.0, "b": 0.0}, cost={"a": 1.4e6}, own=0.0, shared=0.0), budget="flops")
    want = np.mean([np.log(law(d / 1.4) / law(d)) for d in (1.4e6, 2.8e6)])
    assert found.names == ("b", "a")
    assert found.behind[1] == pytest.approx(want, rel=0.01)


def test_what_has_its_best_at_the_edge_is_not_called_worse():
    found = rank(table({"tuned": 0.0, "not": 0.03}, best={"not": 0.05}))
    assert found.names == ("tuned", "not")
    assert found.behind[1] > found.half
    assert not found.better.any()
    assert found.place(0) == found.place(1) == "1-2"
    assert "not: in 6 of 6 cells its best rate is the largest tried (0.032)" in found.warnings[0]
    assert "add lr 0.064" in found.warnings[0]


def test_diverged_runs_are_left_out():
    runs = table({"a": 0.0, "b": 0.01})
    runs["loss"] = [None if lr == 0.032 else x for lr, x in zip(runs["lr"], runs["loss"])]
    assert rank(runs).names == ("a", "b")


def test_the_words_say_ranks_and_noise():
    lines = rank(table({"wsd": 0.01, "cosine": 0.0})).summary()
    assert "at equal tokens, each at its own best rate (6 cells, 3 seeds)" in lines[0]
    assert lines[1].split()[:2] == ["1", "cosine"]
    assert lines[2].split()[:2] == ["2", "wsd"]
    assert "are seed noise (90%, all pairs together)" in lines[3]


@pytest.mark.parametrize(
    ("change", "options", "error", "says"),
    [
        ({"seeds": 1}, {}, Refusal, "one seed only.*add another init_seed"),
        ({"variants": {"a": 0.0}}, {}, Refusal, "only a as schedule; nothing to compare"),
        ({}, {"by": "optimizer"}, RequestError, "no column optimizer; there are schedule"),
        ({}, {"budget": "seconds"}, RequestError, "no column seconds"),
        ({}, {"level": 1.0}, RequestError, "level=1.0: must be"),
        ({"cost": {"a": 1e9}}, {"budget": "flops"}, Refusal, "no flops that all of a, b were trained at"),
    ],
)
def test_what_cannot_be_told_is_refused(change, options, error, says):
    with pytest.raises(error, match=says):
        rank(table(**{"variants": {"a": 0.0, "b": 0.0}} | change), **options)


def test_runs_that_nothing_tells_apart_are_refused():
    runs = table({"a": 0.0, "b": 0.0})
    with pytest.raises(RequestError, match="two runs of a at tokens 1e\\+06"):
        rank({k: v + v for k, v in runs.items()})
