"""Section 7.2 of the design: a member's bits do not depend on the pack, on sharing, or on interruptions."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from support import after, assert_same_bits, outcome, planned, train

from proxytrain.sweep import main as sweep
from proxytrain.train.loop import Interrupted

SEEDS = "sweep.grids=[{init_seed:[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15],schedule:constant,data_seed:[null,7]}]"
LENGTHS = "sweep.grids=[{tokens:[4096,8192,16384],init_seed:[0,1],schedule:[wsd,cosine,constant]}]"


@pytest.fixture(scope="module")
def alone(tmp_path_factory, corpora):
    """Results of runs trained by themselves, made when they are first asked for."""
    known: dict[str, dict[str, np.ndarray]] = {}

    def get(ask, run, *more):
        if run.id not in known:
            root = tmp_path_factory.mktemp("alone")
            (root / "corpora").symlink_to(corpora)
            o = run.recipe.optimizer
            clip = "null" if o.clip is None else o.clip
            asked = ask(
                f"tokens={run.tokens}",
                f"init_seed={run.recipe.init_seed}",
                f"data_seed={run.recipe.data_seed}",
                f"schedule={run.schedule}",
                f"lr={run.lr}",
                f"optimizer={o.name}",
                f"optimizer.clip={clip}",
                f"optimizer.weight_decay={o.weight_decay}",
                *more,
                store=root,
            )
            assert [r.id for r in asked.runs] == [run.id]
            train(asked, largest=1)
            known[run.id] = outcome(asked.store, run.id)
        return known[run.id]

    return get


@pytest.mark.parametrize("K", [2, 5, 16])
def test_a_member_has_the_bits_that_it_has_alone(ask, alone, K):
    asked = ask(SEEDS, "tokens=4096")
    train(asked, largest=K)
    for run in (asked.runs[0], asked.runs[9], asked.runs[-1]):
        assert_same_bits(outcome(asked.store, run.id), alone(ask, run))


def test_so_it_has_where_logits_are_read_out_in_pieces(ask, alone, monkeypatch, tmp_path, corpora):
    whole = alone(ask, ask("tokens=4096").runs[0])
    monkeypatch.setattr("proxytrain.model.gpt.LOGITS", 256 * 100)
    found = []
    for K in (1, 5):
        root = tmp_path / f"by {K}"
        root.mkdir()
        (root / "corpora").symlink_to(corpora)
        asked = ask("sweep.grids=[{init_seed:[0,1,2,3,4]}]", "tokens=4096", store=root)
        train(asked, largest=K)
        found.append([outcome(asked.store, run.id) for run in asked.runs])
    for one, five in zip(*found):
        assert_same_bits(one, five)
    assert found[0][0]["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_rates_decays_and_clips_of_neighbours_do_not_matter(ask, alone):
    asked = ask("sweep.grids=[{lr:[.004,.016,.1],optimizer:{weight_decay:[0,.001],clip:[null,.1]}}]", "tokens=4096")
    train(asked, largest=16)
    for run in asked.runs[::3]:
        assert_same_bits(outcome(asked.store, run.id), alone(ask, run))


def test_a_run_on_a_shared_trunk_has_the_bits_of_one_trained_alone(ask, alone):
    asked = ask(LENGTHS)
    train(asked, largest=4)
    for run in asked.runs:
        assert_same_bits(outcome(asked.store, run.id), alone(ask, run))


def test_a_longer_length_added_later_trains_only_what_is_new(ask, alone):
    short = ask("sweep.grids=[{tokens:[4096,8192]}]")
    train(short)
    before = {p: p.stat().st_mtime_ns for p in short.store.root.glob("segments/*/*/*")}
    longer = ask("sweep.grids=[{tokens:[4096,8192,16384]}]", f"store={short.store.root}")
    train(longer)
    assert before.items() <= {p: p.stat().st_mtime_ns for p in short.store.root.glob("segments/*/*/*")}.items()
    (new,) = [r for r in longer.runs if r not in short.runs]
    curve = longer.store.curve(new.id)
    assert curve.tokens.tolist() == list(range(256, 16384 + 1, 256))
    assert_same_bits(outcome(longer.store, new.id), alone(ask, new))


def test_interruptions_change_nothing(ask, alone):
    asked = ask(LENGTHS, "train.checkpoint_seconds=1e9")
    made = planned(asked)
    stops = 0
    for _ in range(1000):
        try:
            train(asked, made, should_stop=after(7))
            break
        except Interrupted:
            stops += 1
    assert stops > 10
    for run in asked.runs:
        assert_same_bits(outcome(asked.store, run.id), alone(ask, run))
    assert not list(asked.store.root.rglob("*.tmp"))


@pytest.mark.parametrize("optimizer", ["muon", "sgd_sai"])
@pytest.mark.parametrize(
    "largest", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(16, marks=pytest.mark.slow)]
)
def test_of_every_optimizer_neither_pack_nor_trunk_nor_interruptions_change_a_bit(ask, alone, optimizer, largest):
    asked = ask(
        "sweep.grids=[{tokens:[4096,8192],init_seed:[0,1],lr:[.016,.03],schedule:[wsd,constant]}]",
        f"optimizer={optimizer}",
        "model.depth=3",
        "train.checkpoint_seconds=1e9",
    )
    made = planned(asked, largest=largest)
    for _ in range(1000):
        try:
            train(asked, made, should_stop=after(29))
            break
        except Interrupted:
            pass
    for run in asked.runs[:: 3 if largest > 1 else 7]:
        assert_same_bits(outcome(asked.store, run.id), alone(ask, run, "model.depth=3"))


def test_a_diverged_member_is_retired_and_its_neighbours_keep_their_bits(ask, alone):
    asked = ask("sweep.grids=[{lr:[.016,1e20,1e38],tokens:[4096,8192]}]")
    train(asked, largest=16)
    good = [r for r in asked.runs if r.lr == 0.016]
    bad = [r for r in asked.runs if r.lr != 0.016]
    for run in good:
        assert_same_bits(outcome(asked.store, run.id), alone(ask, run))
    for run in bad:
        result = asked.store.result(run.id)
        assert result.status == "diverged"
        assert result.final_loss is None
        curve = asked.store.curve(run.id)
        assert np.isfinite(curve.loss).all()
        assert curve.tokens.max(initial=0) == result.diverged_at < run.tokens


def test_micro_batches_agree_with_the_whole_batch(ask, tmp_path, corpora):
    losses = []
    for parts in (1, 2, 3, 8):
        root = tmp_path / str(parts)
        root.mkdir()
        (root / "corpora").symlink_to(corpora)
        asked = ask(store=root)
        train(asked, micro_batches=parts)
        losses.append(outcome(asked.store, asked.runs[0].id)["loss"])
    for other in losses[1:]:
        assert other[0] == pytest.approx(losses[0][0], rel=1e-5)
        assert other == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("file", ["state", "curve"])
@pytest.mark.parametrize("damage", ["empty", "cut", "changed"])
def test_a_broken_checkpoint_means_the_one_before_it(ask, alone, capsys, file, damage):
    asked = ask("sweep.grids=[{init_seed:[0,1]}]", "train.checkpoint_seconds=1e-6")
    made = planned(asked)
    with pytest.raises(Interrupted):
        train(asked, made, should_stop=after(25))
    states, curves = (sorted(asked.folder.glob(f"packs/*/attempt-*/{what}-*.npz")) for what in ("state", "curve"))
    assert len(states) == 2
    broken = {"state": states, "curve": curves}[file][-1]
    content = broken.read_bytes()
    half = len(content) // 2
    changed = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    broken.write_bytes({"empty": b"", "cut": content[:half], "changed": changed}[damage])
    capsys.readouterr()
    train(asked, made)
    assert f"{states[-1]}: not a whole checkpoint" in capsys.readouterr().out
    for run in asked.runs:
        assert_same_bits(outcome(asked.store, run.id), alone(ask, run))


def test_many_short_attempts_leave_no_more_checkpoints_than_two_of_them(ask, alone):
    asked = ask("sweep.grids=[{init_seed:[0,1]}]", "train.checkpoint_seconds=1e9")
    made = planned(asked)
    for _ in range(5):
        with pytest.raises(Interrupted):
            train(asked, made, should_stop=after(3))
        assert len(list(asked.folder.glob("packs/*/attempt-*/state-*.npz"))) <= 2
    train(asked, made)
    for run in asked.runs:
        assert_same_bits(outcome(asked.store, run.id), alone(ask, run))


def test_with_all_checkpoints_broken_training_starts_again(ask, alone):
    asked = ask("sweep.grids=[{init_seed:[0,1]}]")
    made = planned(asked)
    with pytest.raises(Interrupted):
        train(asked, made, should_stop=after(20))
    for path in asked.folder.glob("packs/*/attempt-*/*.npz"):
        path.write_bytes(b"PK")
    train(asked, made)
    for run in asked.runs:
        assert_same_bits(outcome(asked.store, run.id), alone(ask, run))


def test_what_is_published_first_stays(ask):
    asked = ask()
    made = planned(asked)
    train(asked, made)
    before = {p: p.read_bytes() for p in asked.store.root.glob("segments/*/*/*")}
    for result in asked.store.root.glob("runs/*"):
        shutil.rmtree(result)
    train(asked, made)
    assert before == {p: p.read_bytes() for p in asked.store.root.glob("segments/*/*/*")}
    assert sweep.missing(asked.store, asked.ids) == []


def test_a_run_that_ends_at_a_stored_state_is_evaluated_there(ask, alone):
    train(ask("tokens=10240"))  # its decay starts at 8192
    asked = ask("schedule=constant", "tokens=8192", "sweep.name=later")
    made = planned(asked)
    assert sum(m.tokens for p in made.packs for m in p.members) == 0
    train(asked, made)
    assert_same_bits(outcome(asked.store, asked.runs[0].id), alone(ask, asked.runs[0]))


def test_a_state_that_was_thrown_away_is_made_again(ask, alone):
    train(ask("sweep.grids=[{tokens:[4096,8192]}]"))
    longer = ask("sweep.grids=[{tokens:[4096,8192,16384]}]")
    for state in longer.store.root.glob("segments/*/*/state.npy"):
        state.unlink()
    train(longer)
    for run in longer.runs:
        assert_same_bits(outcome(longer.store, run.id), alone(ask, run))


def test_infinite_runs_of_several_lengths_are_those_trained_apart(ask, tmp_path):
    infinite = ["schedule=infinite", "schedule.cooldown=2048"]
    shared = ask(*infinite, "sweep.grids=[{tokens:[4096,6144,10240]}]")
    train(shared)
    for run in shared.runs:
        apart = ask(*infinite, f"tokens={run.tokens}", "sweep.name=apart", store=tmp_path / str(run.tokens))
        train(apart)
        assert_same_bits(outcome(shared.store, run.id), outcome(apart.store, run.id))


def test_any_history_of_sweeps_ends_with_every_run_trained(ask):
    random = np.random.default_rng(0)
    for _ in range(15):
        lengths = sorted(random.choice([2048, 4096, 6144, 8192, 10240], 2, replace=False).tolist())
        schedules = random.choice(["wsd", "constant", "cosine", "power"], 2, replace=False).tolist()
        asked = ask(f"sweep.grids=[{{tokens:{lengths},schedule:{schedules}}}]".replace(" ", "").replace("'", ""))
        made = planned(asked)
        if random.random() < 0.3:
            for state in asked.store.root.glob("segments/*/*/state.npy"):
                if random.random() < 0.5:
                    state.unlink()
            made = planned(asked)
        if random.random() < 0.3:
            for result in asked.store.root.glob("runs/*"):
                shutil.rmtree(result)
            made = planned(asked)
        train(asked, made)
        assert sweep.missing(asked.store, asked.ids) == []
        for run in asked.runs:
            B = run.recipe.batch_tokens
            assert asked.store.curve(run.id).tokens.tolist() == list(range(B, run.tokens + 1, B))


def test_a_segment_whose_record_is_lost_is_trained_from_where_it_is_now_and_replaced_whole(ask, alone):
    train(ask("tokens=16384"))
    asked = ask("sweep.grids=[{tokens:[8192,16384]}]")
    train(asked)  # the shorter one cuts the trunk, which was in one piece, so its second part now begins later
    run = asked.runs[-1]
    result = asked.store.result(run.id)
    trunk = asked.store.meta(result.key).parent
    (asked.store.segment(tuple(trunk)) / "segment.json").unlink()
    (asked.store.run(run.id) / "result.json").unlink()
    train(asked)
    assert_same_bits(outcome(asked.store, run.id), alone(ask, run))
