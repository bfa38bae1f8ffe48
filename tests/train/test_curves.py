"""What a run records, and that it means what it says."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from support import outcome, train

from proxytrain.config.recipe import NUMERICS_VERSION
from proxytrain.config.schedule import learning_rates
from proxytrain.corpus import Stream
from proxytrain.errors import RequestError
from proxytrain.model.gpt import cross_entropy, initial, logits, views
from proxytrain.model.layout import layout
from proxytrain.model.parametrization import Scales


def test_rows_are_updates_with_the_loss_before_and_the_rate_at_their_end(ask):
    asked = ask("schedule=cosine")
    train(asked)
    (run,) = asked.runs
    curve = asked.store.curve(run.id)
    assert curve.step.tolist() == list(range(32))
    assert curve.tokens.tolist() == list(range(256, 8193, 256))
    assert curve.lr == pytest.approx(learning_rates(run.phases, curve.tokens))
    assert curve.loss[0] == pytest.approx(math.log(256), rel=1e-6)  # zero readout, zero logit bias
    assert curve.loss[-1] < curve.loss[0] - 1
    assert (curve.grad_norm > 0).all()


def test_a_curve_whose_segments_do_not_follow_each_other_is_refused(ask):
    asked = ask("schedule=wsd")
    train(asked)
    (run,) = asked.runs
    result = asked.store.result(run.id)
    path = asked.store.segment(result.key) / "segment.json"
    record = json.loads(path.read_text())
    assert record["parent"]
    path.write_text(json.dumps({**record, "parent": None}))
    with pytest.raises(RequestError, match="its updates do not follow those before it"):
        asked.store.curve(run.id)


def test_the_first_losses_are_those_of_the_stream_s_first_batches(ask):
    asked = ask("parametrization.readout_std=1", "data_seed=5")
    train(asked)
    (run,) = asked.runs
    r = run.recipe
    flat = initial(layout(r.model, r.vocab), r.model, r.parametrization, r.init_seed)[None]
    ids, targets = (torch.from_numpy(x) for x in Stream(asked.corpus.train, r.model.context, 5).read(0, 256))
    with torch.no_grad():
        out = logits(views(flat, layout(r.model, r.vocab)), ids[None], r.model, Scales(1.0, 1.0))
    assert cross_entropy(out, targets.reshape(1, -1)).mean().item() == pytest.approx(
        asked.store.curve(run.id).loss[0], rel=1e-6
    )


def test_evaluations_stand_on_one_grid_of_absolute_tokens(ask):
    asked = ask("sweep.grids=[{tokens:[8192,16384],schedule:[wsd,cosine]}]", "train.eval_every=3000")
    train(asked)
    grid = [-(-k * 3000 // 256) * 256 for k in range(1, 10)]
    for run in asked.runs:
        assert asked.store.curve(run.id).eval_tokens.tolist() == [t for t in grid if t <= run.tokens]


def test_a_result_says_what_a_table_needs(ask):
    asked = ask("init_seed=3")
    train(asked)
    (run,) = asked.runs
    result = asked.store.result(run.id)
    assert result.status == "done"
    assert result.tokens == 8192
    assert result.bits_per_byte == pytest.approx(result.final_loss / math.log(2))  # a byte a token
    assert 0 < result.val_se < 0.1
    assert result.epochs == pytest.approx(8192 / asked.corpus.manifest.train_tokens, rel=1e-3)
    assert result.numerics_version == NUMERICS_VERSION
    assert result.recipe.init_seed == result.recipe.data_seed == 3
    assert (asked.store.run(run.id) / "config.yaml").read_text().startswith("model:")
    assert not list(asked.store.root.rglob("*.tmp"))


def test_evaluation_does_not_change_training(ask, tmp_path, corpora):
    losses = []
    for every in ("300", "1e9"):
        root = tmp_path / every
        root.mkdir()
        (root / "corpora").symlink_to(corpora)
        asked = ask(f"train.eval_every={every}", store=root)
        train(asked)
        losses.append(outcome(asked.store, asked.runs[0].id))
    assert np.array_equal(losses[0]["loss"], losses[1]["loss"])
    assert np.array_equal(losses[0]["final_loss"], losses[1]["final_loss"])


def test_z_loss_pulls_the_partition_function_without_entering_the_loss(ask):
    losses = {}
    for z in ("0", "0.1"):
        asked = ask(f"optimizer.z_loss={z}", "parametrization.readout_std=1")
        train(asked)
        losses[z] = asked.store.curve(asked.runs[0].id).loss
    assert losses["0"][0] == losses["0.1"][0]
    assert losses["0"][1] != losses["0.1"][1]


def test_bfloat16_follows_float32(ask):
    finals = {}
    for precision in ("float32", "bfloat16"):
        asked = ask(f"train.precision={precision}")
        train(asked)
        finals[precision] = asked.store.result(asked.runs[0].id).final_loss
    assert finals["bfloat16"] == pytest.approx(finals["float32"], rel=0.02)
    assert finals["bfloat16"] != finals["float32"]


KINDS = ["model.mlp=swiglu", "model.mlp=gelu", "model.tied=true", "model.qk_norm=false", "model.shared_qk=true"]


@pytest.mark.parametrize("change", KINDS)
def test_every_kind_of_model_learns(ask, change):
    asked = ask(
        change, *(["parametrization.readout_std=1", "parametrization.embedding_std=.1"] if "tied" in change else [])
    )
    train(asked)
    curve = asked.store.curve(asked.runs[0].id)
    assert curve.loss[-1] < curve.loss[0] - 0.8


@pytest.mark.slow
def test_more_threads_agree_within_a_tolerance(ask, tmp_path, corpora):
    losses = []
    for threads in (1, 2):
        root = tmp_path / str(threads)
        root.mkdir()
        (root / "corpora").symlink_to(corpora)
        torch.set_num_threads(threads)
        asked = ask(store=root)
        train(asked)
        losses.append(outcome(asked.store, asked.runs[0].id)["loss"])
    torch.set_num_threads(1)
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
