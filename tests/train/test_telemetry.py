"""What is seen of a run while it trains: true to plain formulas, the same in every pack, without effect on training."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from support import assert_same_bits, outcome, planned, train

from proxytrain.config.compose import compose
from proxytrain.config.schema import Parametrization, build_config
from proxytrain.corpus import Stream
from proxytrain.model import gpt as model
from proxytrain.model.gpt import initial, logits, views
from proxytrain.model.layout import layout
from proxytrain.model.parametrization import scales
from proxytrain.train.loop import Interrupted, train_pack
from proxytrain.train.telemetry import columns

LENGTHS = "sweep.grids=[{tokens:[2048,4096],init_seed:[0,1,2],schedule:[wsd,cosine]}]"
OFTEN = "train.telemetry_every=3"


def elsewhere(ask, tmp_path, corpora, name, *overrides):
    root = tmp_path / name
    root.mkdir()
    (root / "corpora").symlink_to(corpora)
    return ask(*overrides, store=root)


def seen(asked, run):
    return asked.store.curve(run.id).telemetry


def test_looking_changes_no_bit_of_what_is_trained(ask, tmp_path, corpora):
    blind = elsewhere(ask, tmp_path, corpora, "blind", LENGTHS, "train.telemetry_every=0")
    train(blind, largest=3)
    for K in (1, 5):
        asked = elsewhere(ask, tmp_path, corpora, str(K), LENGTHS, OFTEN)
        train(asked, largest=K)
        for run in asked.runs:
            assert_same_bits(outcome(blind.store, run.id), outcome(asked.store, run.id))
            assert seen(asked, run)["tokens"].tolist() == list(range(3 * 256, run.tokens + 1, 3 * 256))
            assert seen(blind, run) == {}


def test_what_is_seen_does_not_depend_on_the_pack_or_on_interruptions(ask, tmp_path, corpora):
    alone = elsewhere(ask, tmp_path, corpora, "alone", LENGTHS, OFTEN)
    train(alone, largest=1)
    asked = ask(LENGTHS, OFTEN, "train.checkpoint_seconds=1e9")
    made, stops = planned(asked, largest=5), 0
    for _ in range(100):
        left = itertools.count(7, -1)
        try:
            train(asked, made, should_stop=lambda left=left: next(left) <= 1)
            break
        except Interrupted:
            stops += 1
    assert stops > 3
    for run in asked.runs:
        assert_same_bits(seen(asked, run), seen(alone, run))


@pytest.mark.parametrize("norm", [True, False])
def test_it_is_what_plain_formulas_give(ask, norm):
    plain = ["model=plain", "model.depth=1", f"model.qk_norm={norm}", "optimizer.clip=.05", "parametrization=sp"]
    asked = ask(
        *plain, "tokens=256", "warmup=0", "schedule=constant", "train.telemetry_every=1", "train.keep_weights=all",
        "model.width=16", "model.head_size=8", "model.context=32", "optimizer.eps=1e-6",
    )  # fmt: skip
    train(asked)
    (run,) = asked.runs
    r, m = run.recipe, run.recipe.model
    found = {name: float(v[0]) for name, v in seen(asked, run).items()}
    weights = layout(m, r.vocab)
    flat = initial(weights, m, r.parametrization, r.init_seed)
    w = {x.name: flat[x.offset : x.offset + x.size].view(x.shape).requires_grad_() for x in weights}
    ids, targets = (torch.from_numpy(x) for x in Stream(asked.corpus.train, 32, 0).read(0, 256))
    ids, targets = ids.view(8, 32), targets.view(8, 32)

    def rms_norm(x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    x = w["embedding"][ids]
    q, k, v = (
        y.view(8, 32, 2, 8).transpose(1, 2) for y in (rms_norm(x) * w["0.norm_attention"] @ w["0.qkv"]).split(16, 2)
    )
    q, k = (rms_norm(q) * w["0.qk_gain"][:, None, None], rms_norm(k)) if norm else (q, k)
    angle = torch.arange(32.0)[:, None] * 10000 ** (-torch.arange(0, 8, 2) / 8)
    turn = torch.polar(torch.ones_like(angle), angle)
    q, k = (torch.view_as_real(torch.complex(*y.chunk(2, -1)) * turn).mT.flatten(-2) for y in (q, k))
    scores = (q @ k.mT / 8**0.5).masked_fill(torch.ones(32, 32, dtype=torch.bool).triu(1), -torch.inf)
    x = x + (scores.softmax(-1) @ v).transpose(1, 2).reshape(8, 32, 16) @ w["0.attention_out"]
    x = x + (rms_norm(x) * w["0.norm_mlp"] @ w["0.mlp_in"]).relu().square() @ w["0.mlp_out"]
    out = rms_norm(x) * w["norm"] @ w["readout"]
    torch.nn.functional.cross_entropy(out.flatten(0, 1), targets.flatten()).backward()
    after = np.load(next(asked.store.root.glob("segments/*/256/state.npy")))

    def rms(x):
        return float(np.sqrt(np.mean(np.concatenate([np.ravel(y) for y in x]) ** 2)))

    expected = {
        "attention_logit_max.0": scores.max().item(),
        "activation_rms.0": x.square().mean().sqrt().item(),
        "log_z": out.logsumexp(-1).mean().item(),
    }
    for kind in ("embedding", "attention", "mlp", "norm", "readout"):
        own = [y for y in weights if y.component == kind]
        cut = [slice(y.offset, y.offset + y.size) for y in own]
        expected[f"grad_rms.{kind}"] = rms([w[y.name].grad.numpy() for y in own])
        expected[f"param_rms.{kind}"] = rms([w[y.name].detach().numpy() for y in own])
        expected[f"update_rms.{kind}"] = rms([after[0][s] - flat[s].detach().numpy() for s in cut])
        expected[f"under_eps.{kind}"] = np.mean(np.concatenate([np.sqrt(after[2][s] / (1 - 0.95)) < 1e-6 for s in cut]))
    assert list(found) == ["tokens", *columns(r)]
    assert found.pop("tokens") == 256
    assert found == pytest.approx(expected, rel=1e-4)
    assert 0 < found["under_eps.embedding"] < 1  # tokens that the batch does not have


def test_many_logits_are_read_out_in_pieces(monkeypatch):
    shape = build_config(compose(["model.width=16", "model.head_size=8", "parametrization=sp"])).model
    sp = Parametrization(name="sp", base_width=1, embedding_std=1.0, readout_std=1.0)
    flat = torch.stack([initial(layout(shape, 50), shape, sp, seed) for seed in (0, 1)])
    weights, ids = views(flat, layout(shape, 50)), torch.arange(2 * 3 * 32).remainder(50).view(2, 3, 32)
    whole = logits(weights, ids, shape, scales(shape, sp)).logsumexp(2).mean(1)
    monkeypatch.setattr(model, "LOGITS", 50 * 7)
    pieces = model.log_partition(weights, ids, shape, scales(shape, sp), lambda name, x: None)
    assert pieces.tolist() == pytest.approx(whole.tolist(), rel=1e-5)


def test_columns_are_those_that_an_optimizer_has(ask):
    for optimizer in ("muon", "sgd_sai"):
        asked = ask(f"optimizer={optimizer}", "tokens=2048", "train.telemetry_every=4")
        train(asked)
        (run,) = asked.runs
        found = seen(asked, run)
        assert all(np.isfinite(v).all() for v in found.values())
        assert ("under_eps.norm" in found) == (optimizer == "muon")
        assert found["update_rms.mlp"][0] > 0


def test_of_muon_s_matrices_no_second_moment_is_looked_at(ask):
    plain = ["model=plain", "model.width=16", "model.head_size=8", "model.context=32"]
    asked = ask("optimizer=muon", *plain, "tokens=2048", "warmup=256", "train.telemetry_every=4")
    train(asked)
    (run,) = asked.runs
    kinds = {name.partition(".")[2] for name in seen(asked, run) if name.startswith("under_eps.")}
    gains = {w.component for w in layout(run.recipe.model, run.recipe.vocab) if not w.matrix}
    assert kinds == gains
    assert "mlp" not in kinds  # nothing but matrices there


def test_what_was_seen_in_other_columns_is_left_out_when_a_checkpoint_is_gone_on_from(ask):
    asked = ask("optimizer=muon", "train.telemetry_every=1", "train.checkpoint_seconds=1e9")
    made, left = planned(asked), itertools.count(7, -1)
    with pytest.raises(Interrupted):
        train(asked, made, should_stop=lambda: next(left) <= 1)
    (path,) = asked.folder.glob("packs/*/attempt-*/state-*.npz")
    with np.load(path) as file:
        state = dict(file)
    meta = json.loads(state["meta"].tobytes())
    meta["members"][0]["telemetry"].append("under_eps.mlp")  # as a version before wrote it
    path.unlink()
    np.savez(path, **state | {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)})
    train(asked, made)
    (run,) = asked.runs
    assert seen(asked, run)["tokens"].tolist() == list(range(8 * 256, run.tokens + 1, 256))


def test_a_high_rate_makes_attention_logits_grow_unless_queries_and_keys_are_normalised(ask):
    """The negative control of 2309.14322."""
    asked = ask(
        "sweep.grids=[{model:{qk_norm:[true,false]},lr:[.001,.1]}]",
        "parametrization=sp", "parametrization.embedding_std=1", "schedule=constant", "tokens=16K", "warmup=2048",
        "train.telemetry_every=8", "optimizer.z_loss=1e-4", "optimizer.weight_decay=0",
    )  # fmt: skip
    train(asked)
    largest = {}
    for run in asked.runs:
        logits = [v for name, v in seen(asked, run).items() if name.startswith("attention_logit_max.")]
        largest[run.recipe.model.qk_norm, run.lr] = np.max(logits, axis=0)
    assert largest[False, 0.1][-1] > 5 * largest[False, 0.1][1] > 50
    assert all(found.max() < 10 for kind, found in largest.items() if kind != (False, 0.1))


def test_a_diverged_member_ends_early_and_its_place_is_used(ask):
    asked = ask("sweep.grids=[{lr:[.016,1e30],init_seed:[0,1]}]", "tokens=32K", "schedule=constant")
    (pack,) = planned(asked).packs
    trained = []
    attempt = asked.folder / "packs" / pack.id / "attempt-001"
    attempt.mkdir(parents=True)
    train_pack(
        pack, store=asked.store, corpus=asked.corpus, runs={r.id: r for r in asked.records},
        train=asked.config.train, micro_batches=1, compiled=False, device=torch.device("cpu"),
        folders=[attempt.parent], attempt=attempt, should_stop=lambda: False,
        report=lambda rows: trained.append((len(rows.active), len(rows.state.weights))),
    )  # fmt: skip
    assert trained[0] == (4, 4)
    assert trained[-1] == (2, 2)  # the buffers hold those who are left, and nothing is spent on the others
    assert set(trained[2:]) == {(2, 2)}
    statuses = {run.lr: asked.store.result(run.id).status for run in asked.runs}
    assert statuses == {0.016: "done", 1e30: "diverged"}
