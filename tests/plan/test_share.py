"""Sharing: what is trained once, and that nothing is lost by it."""

from __future__ import annotations

from msgspec.structs import replace

from proxytrain.config.compose import compose, group_loader
from proxytrain.config.schema import build_config
from proxytrain.plan.grid import expand
from proxytrain.plan.pack import pack
from proxytrain.plan.runs import Run, run_of
from proxytrain.plan.share import forest

BASE = ["model.width=32", "batch_tokens=1024", "warmup=8192"]


def runs(*grids: dict, overrides: tuple[str, ...] = ()) -> list[Run]:
    tree = compose([*BASE, *overrides])
    build_config(tree)
    return [run_of(c, "c", 256) for c in expand(tree, list(grids), group_loader([*BASE, *overrides]))]


def tokens(segments) -> int:
    return sum(s.end - s.start for s in segments.values())


def test_wsd_at_five_doubling_lengths_trains_the_analytic_minimum():
    lengths = [1024 * 1000 * 2**i for i in range(5)]
    shared = runs({"tokens": lengths})
    trunk = 0.8 * lengths[-1]
    assert tokens(forest(shared)) == trunk + sum(0.2 * n for n in lengths)
    assert round(tokens(forest(shared)) / sum(lengths), 2) == 0.61


def test_constant_runs_of_any_lengths_cost_the_longest():
    assert tokens(forest(runs({"tokens": [1_024_000, 2_048_000, 3_072_000], "schedule": "constant"}))) == 3_072_000


def test_cosine_runs_share_their_warmup_only():
    segments = forest(runs({"tokens": [1_024_000, 2_048_000], "schedule": "cosine"}))
    assert tokens(segments) == 1_024_000 + 2_048_000 - 8192


def test_infinite_runs_share_all_but_their_decays():
    segments = forest(runs({"tokens": [1_024_000, 2_048_000], "schedule": "infinite"}))
    assert tokens(segments) == round(0.8 * 2000) * 1024 + round(0.2 * 1000) * 1024 + round(0.2 * 2000) * 1024


def test_schedules_of_one_rate_share_the_warmup():
    segments = forest(runs({"tokens": 1_024_000, "schedule": ["cosine", "wsd", "constant"]}))
    assert tokens(segments) == 8192 + 3 * (1_024_000 - 8192) - round(0.8 * 1000) * 1024 + 8192


def test_recipes_rates_and_seeds_share_nothing():
    asked = runs({"tokens": 1_024_000, "lr": [0.1, 0.2], "init_seed": [0, 1], "model.width": [32, 64]})
    assert tokens(forest(asked)) == 8 * 1_024_000


def test_every_run_ends_at_one_node_and_every_parent_comes_first():
    asked = runs({"tokens": [1_024_000, 2_048_000], "schedule": ["wsd", "power", "cosine", "constant"]})
    segments = forest(asked)
    assert sorted(s.run_id for s in segments.values() if s.run_id) == sorted(r.id for r in asked)
    seen = set()
    for key, segment in segments.items():
        assert segment.parent is None or segment.parent in seen
        assert segment.start < segment.end
        seen.add(key)


def test_a_path_of_nodes_covers_its_run_without_gaps():
    asked = runs({"tokens": [1_024_000, 2_048_000, 3_072_000], "schedule": ["wsd", "power"]})
    segments = forest(asked)
    for segment in segments.values():
        total, s = segment.end - segment.start, segment
        while s.parent:
            s = segments[s.parent]
            total += s.end - s.start
        assert total == segment.end


def test_a_trunk_s_end_is_kept_and_a_longer_length_starts_there():
    short = forest(runs({"tokens": 1_024_000}))
    trunk = max(n.end for n in short.values() if n.open)
    assert trunk == 0.8 * 1_024_000
    stored = [n.key for n in short.values() if n.open]
    both = forest(runs({"tokens": [1_024_000, 2_048_000]}), stored)
    new = {k: n for k, n in both.items() if k not in short}
    assert min(n.start for n in new.values()) == trunk


def test_a_length_in_between_starts_at_the_stored_state_before_it():
    stored = [n.key for n in forest(runs({"tokens": [1_024_000, 4_096_000]})).values() if n.open]
    between = forest(runs({"tokens": 2_048_000}), stored)
    assert [n.start for n in sorted(between.values(), key=lambda n: n.end)] == [819_200, 1_638_400]


def test_packs_hold_every_node_once_and_only_members_of_one_shape():
    asked = runs({"tokens": [1_024_000, 2_048_000], "init_seed": [0, 1, 2], "model.width": [32, 64], "lr": [0.1, 0.2]})
    segments = forest(asked)
    packs = pack(segments, memory=1 << 40, workers=2, largest=4, device="cpu")
    trained = [s.key for p in packs for m in p.members for s in m.segments]
    assert sorted(trained) == sorted(segments)
    for p in packs:
        assert len(p.members) <= 4
        assert len({m.recipe.shape for m in p.members}) == 1
        for m in p.members:
            assert all(b.parent == a.key for a, b in zip(m.segments, m.segments[1:]))


def test_a_pack_comes_after_those_that_it_needs():
    packs = pack(forest(runs({"tokens": [1_024_000, 2_048_000]})), memory=1 << 40, workers=1, largest=4, device="cpu")
    done = set()
    for p in packs:
        assert p.needs <= done
        done |= {s.key for m in p.members for s in m.segments}


def test_members_differ_in_seed_decay_and_clip_within_a_pack():
    asked = runs({"tokens": 1_024_000, "init_seed": [0, 1], "optimizer": {"weight_decay": [0, 0.1], "clip": [1, None]}})
    assert len({r.recipe.shape for r in asked}) == 1
    assert len({r.recipe.id for r in asked}) == 8
    assert replace(asked[0].recipe, batch_tokens=2048).shape != asked[0].recipe.shape


def test_memory_limits_a_pack():
    segments = forest(runs({"tokens": 1_024_000, "init_seed": list(range(8))}))
    assert max(len(p.members) for p in pack(segments, memory=40_000_000, workers=1, largest=64, device="cpu")) < 8
    assert len(pack(segments, memory=1 << 40, workers=1, largest=64, device="cpu")) == 1
    assert len(pack(segments, memory=1 << 40, workers=2, largest=64, device="cpu")) == 2
