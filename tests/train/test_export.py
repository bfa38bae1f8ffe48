"""A finished run's weights, as files and as a plain model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from support import train

import proxytrain
from proxytrain.model.gpt import cross_entropy
from proxytrain.model.layout import layout
from proxytrain.train import evaluate
from proxytrain.train.update import EVALUATE_TOKENS


@torch.no_grad()
def val_loss(asked, model) -> float:
    """The mean loss of the whole validation set, read as training reads it."""
    T = model.config.context
    ids, targets = (torch.from_numpy(x) for x in evaluate.sequences(asked.corpus.val, T))
    chunk = min(asked.runs[0].recipe.batch_tokens, EVALUATE_TOKENS) // T
    parts = []
    for i in range(0, len(ids), chunk):
        out = model(ids[i : i + chunk]).flatten(0, 1)
        loss = cross_entropy(out[None], targets[i : i + chunk].reshape(1, -1))
        parts.append(loss.view(-1, T).double().mean(1))
    return float(torch.cat(parts).mean())


@pytest.mark.parametrize("largest", [1, 4])
def test_a_run_s_model_has_the_run_s_loss_whichever_pack_trained_it(ask, largest):
    asked = ask("sweep.grids=[{init_seed:[0,1],tokens:[4096,8192],schedule:[wsd,cosine]}]")
    train(asked, largest=largest)
    for run in asked.runs:
        model = proxytrain.load_model(run.id, store=asked.store.root)
        assert val_loss(asked, model) == asked.store.result(run.id).final_loss


@pytest.mark.parametrize("change", ["parametrization=sp", "model.mlp=swiglu", "model=plain", "model.depth=3"])
def test_models_of_every_shape_come_back(ask, change):
    asked = ask(change, "tokens=4096", "model.width=16", "model.head_size=8", "model.context=32")
    train(asked)
    model = proxytrain.load_model(asked.runs[0].id, store=asked.store)
    assert val_loss(asked, model) == asked.store.result(asked.runs[0].id).final_loss


def test_the_file_is_one_that_anybody_can_read(ask):
    asked = ask("tokens=4096")
    train(asked)
    (run,) = asked.runs
    tensors = load_file(asked.store.run(run.id) / "weights.safetensors")
    assert tensors["blocks.0.qkv"].shape == (16, 48)
    assert sum(v.size for v in tensors.values()) == sum(w.size for w in layout(run.recipe.model, run.recipe.vocab))
    assert asked.store.result(run.id).params.total == sum(v.size for v in tensors.values())


@pytest.mark.parametrize(("keep", "weights", "states"), [("none", 0, 1), ("final", 2, 1), ("all", 2, 3)])
def test_what_is_kept_is_what_was_asked(ask, keep, weights, states):
    asked = ask("sweep.grids=[{tokens:[4096,8192]}]", "schedule=cosine", f"train.keep_weights={keep}")
    train(asked)
    assert len(list(asked.store.root.glob("runs/*/weights.safetensors"))) == weights
    assert len(list(asked.store.root.glob("segments/*/*/state.npy"))) == states
    if keep == "none":
        with pytest.raises(proxytrain.RequestError, match="its weights were not kept"):
            proxytrain.load_model(asked.runs[0].id, store=asked.store)


def test_weights_of_a_run_at_a_branch_point_come_from_its_state_too(ask):
    asked = ask("schedule=constant", "tokens=4096", "train.keep_weights=none")
    train(asked)
    model = proxytrain.load_model(asked.runs[0].id, store=asked.store)
    assert val_loss(asked, model) == asked.store.result(asked.runs[0].id).final_loss


def test_what_is_not_there_or_not_whole_is_said(ask):
    asked = ask("tokens=4096")
    train(asked)
    with pytest.raises(proxytrain.RequestError, match="no such run"):
        proxytrain.load_model("0" * 16, store=asked.store)
    path = asked.store.run(asked.runs[0].id) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(proxytrain.RequestError, match="not the weights of this run"):
        proxytrain.load_model(asked.runs[0].id, store=asked.store)
    np.save(path.with_suffix(".npy"), np.array([print], dtype=object), allow_pickle=True)
    path.with_suffix(".npy").rename(path)
    with pytest.raises(proxytrain.RequestError, match="not the weights of this run"):
        proxytrain.load_model(asked.runs[0].id, store=asked.store)
