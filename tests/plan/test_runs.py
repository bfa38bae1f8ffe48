"""Ids: they cover everything that changes the result and nothing else."""

from __future__ import annotations

import pytest

from proxytrain.config.compose import compose
from proxytrain.config.recipe import canonical, digest
from proxytrain.config.schedule import cut
from proxytrain.config.schema import build_config
from proxytrain.config.section import Section
from proxytrain.errors import RequestError
from proxytrain.model import accounting
from proxytrain.plan.runs import lineage, run_of


def run(*overrides: str, corpus: str = "c"):
    return run_of(build_config(compose(["tokens=1M", *overrides])), corpus, 256)


CHANGES = [
    "model.width=48", "model.depth=3", "model.head_size=8", "model.context=32", "model.mlp=gelu", "model.mlp_ratio=3",
    "model.rope_base=1000", "model.qk_norm=false", "model.logit_bias=false", "model.shift_keys=false",
    "model.conv_attention=2", "model.conv_mlp=0", "parametrization=sp", "parametrization.base_width=64",
    "parametrization.embedding_std=.5", "parametrization.readout_std=.1", "optimizer.beta1=.8", "optimizer.beta2=.99",
    "optimizer.eps=1e-8", "optimizer.weight_decay=0", "optimizer.clip=null", "optimizer.z_loss=1e-4", "schedule=cosine",
    "schedule.decay=.1", "schedule.shape=linear", "schedule.final=.1", "lr=.01", "warmup=51200", "tokens=2M",
    "batch_tokens=2048", "init_seed=1", "data_seed=1", "train.precision=bfloat16", "optimizer.decay=coupled",
    "model.shared_qk=true", "model.uniform_heads=true",
]  # fmt: skip
SAME = [
    "train.device=cpu", "train.memory=1e9", "train.checkpoint_seconds=1", "train.eval_every=1000", "launch.workers=7",
    "train.eval_tokens=64", "launch.threads=2", "store=elsewhere", "sweep.name=other", "fit.level=.8", "data_seed=0",
    "tokens=1_000_100", "model.conv_attention=3.0", "train.telemetry_every=0", "optimizer.decay=independent",
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_result_changes_the_id(change):
    assert run(change).id != run().id


def test_the_corpus_is_part_of_the_id():
    assert run(corpus="d").id != run().id


@pytest.mark.parametrize("change", SAME)
def test_what_does_not_change_the_result_does_not_change_the_id(change):
    assert run(change).id == run().id


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (["parametrization=sp"], "parametrization.base_width=64"),
        (["model.tied=true", "parametrization.readout_std=1"], "parametrization.readout_std=2"),
    ],
)
def test_keys_without_an_effect_do_not_tell_runs_apart(base, change):
    assert run(*base).id == run(*base, change).id


def test_ids_stay_what_they_were():
    # a change here means that finished runs are trained again: raise NUMERICS_VERSION if that is meant
    assert run().id == "fab5fcb9c1b076db"


def test_a_key_added_with_a_default_keeps_old_ids():
    class Old(Section, frozen=True):
        width: int

    class New(Section, frozen=True):
        width: int
        dropout: float = 0.0

    assert digest(Old(width=3)) == digest(New(width=3)) != digest(New(width=3, dropout=0.1))
    assert canonical(New(width=3)) == {"width": 3}


def test_lineages_are_shared_as_far_as_phases_are():
    short, long = run("tokens=1M"), run("tokens=2M")
    at = short.phases[-1].start
    name = lineage(short.recipe, short.lr, cut(short.phases, at))
    assert name == lineage(long.recipe, long.lr, cut(long.phases, at))
    assert lineage(short.recipe, short.lr, short.phases) != lineage(long.recipe, long.lr, long.phases)


def test_a_run_s_length_may_be_given_three_ways():
    model = run().recipe.model
    n = accounting.params(model, 256).non_embedding
    each = accounting.flops_per_token(model, 256)
    assert run("tokens=null", "tokens_per_param=50").tokens == round(50 * n / 1024) * 1024
    assert run("tokens=null", f"flops={each * 512000}").tokens == 512000
    assert run("tokens=null", "warmup=10K").tokens == round(20 * n / 1024) * 1024


def test_a_run_shorter_than_an_update_is_refused():
    with pytest.raises(RequestError, match="tokens=1000: a run of 1000 tokens is shorter than one update of 1024"):
        run("tokens=1000")
