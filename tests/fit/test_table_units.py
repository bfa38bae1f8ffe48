"""Numbers that are in another unit than the one that they are read in: the likely unit is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import runs

from proxytrain.errors import RequestError
from proxytrain.fit.core.noise import from_repeats
from proxytrain.fit.losses.fit import UNUSUAL
from proxytrain.fit.tables.duplicates import once
from proxytrain.fit.tables.table import read_runs

WRONG = {
    "tokens in thousands": (lambda t: t.assign(tokens=t.tokens / 1e3), "Does tokens count thousands"),
    "tokens in millions": (lambda t: t.assign(tokens=t.tokens / 1e6), "In thousands, millions or billions"),
    "params in millions": (lambda t: t.assign(params=t.params / 1e6), "In thousands, millions or billions"),
    "updates as tokens": (lambda t: t.assign(tokens=t.tokens / 1e5), "Does tokens count millions"),
    "tokens below a batch": (lambda t: t.assign(batch_tokens=1e9), "shorter than one update of batch_tokens=1e\\+09"),
    "batch in sequences": (
        lambda t: t.assign(batch_tokens=512, steps=t.tokens / (512 * 2048)),
        "batch_tokens counts sequences of 2048 tokens",
    ),
    "batch in sequences, no steps": (lambda t: t.assign(batch_tokens=8), "Does it count sequences"),
    "petaFLOPs": (
        lambda t: t.assign(flops=6 * t.params * t.tokens / 1e9).drop(columns="tokens"),
        "tokens follow from flops / 6: are flops counted in another unit",
    ),
    "accuracy": (lambda t: t.assign(loss=1 / t.loss), "rises with size and length, from 0.213 to 0.329: an accuracy"),
    "percent": (lambda t: t.assign(loss=100 / t.loss), "a score in percent"),
    "perplexity": (lambda t: t.assign(loss=np.exp(t.loss)), "a perplexity. Give the loss in nats per token"),
    "perplexity by name": (lambda t: t.rename(columns={"loss": "params_ppl"}), "no column loss"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_likely_unit_is_named(name):
    change, says = WRONG[name]
    with pytest.raises(RequestError, match=says) as error:
        read_runs(change(runs()))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["val_ppl", "perplexity", "eval_acc", "top1Accuracy"])
def test_a_loss_that_is_none_by_its_name_is_refused(name):
    with pytest.raises(RequestError, match=r"accuracy by its name|a perplexity"):
        read_runs(runs().rename(columns={"loss": name}), {"loss": name})


UNLIKELY = {
    "FLOPs in petaFLOPs": (lambda t: t.assign(flops=6 * t.params * t.tokens / 1e15), "FLOPs in petaFLOPs?"),
    "params in thousands": (lambda t: t.assign(params=t.params / 1e3), "do params count thousands"),
    "high losses": (lambda t: t.assign(loss=2 * t.loss), "high for a loss in nats per token"),
}


@pytest.mark.parametrize("name", UNLIKELY)
def test_what_is_only_unlikely_is_a_warning(name):
    change, says = UNLIKELY[name]
    assert any(says in note for note in read_runs(change(runs())).notes)


def test_flops_that_count_attention_and_embeddings_are_no_mistake():
    assert read_runs(runs().assign(flops=lambda t: 9 * t.params * t.tokens)).notes == ()


@pytest.mark.parametrize("name", ["chinchilla_epoch", "olmo_ladder_c4", "gadre", "farseer", "datablations"])
def test_published_tables_give_no_alarm(published, name):
    columns = {"gadre": {"params": "params_nonembedding", "group": "corpus"}, "farseer": {"params": "N", "tokens": "D"}}
    found = read_runs(published(f"{name}.csv"), columns.get(name))
    assert found.notes == ()
    assert not found.settings


def test_the_published_grids_of_learning_rates_give_no_alarm(published):
    table = pd.read_csv(published("olmo_ladder_c4.csv").parents[1] / "optimum" / "steplaw_dense.csv")
    found = read_runs(table.assign(batch_tokens=table.batch_sequences_of_2048 * 2048))
    assert found.notes == ()
    assert not found.settings
    with pytest.raises(RequestError, match=r"batch_tokens counts sequences of 204\d"):
        read_runs(table.rename(columns={"batch_sequences_of_2048": "batch_tokens"}))


@pytest.mark.parametrize("bank", ["bank/losses.csv", "bank_gpt/losses.csv", "bank_gpt/far.csv"])
def test_our_own_runs_give_no_alarm(bank):
    found = read_runs(Path(__file__).parents[1] / "data" / bank)
    assert found.notes == ()
    assert not found.settings
    assert once(found) == (found, [])
    assert from_repeats(found).run < UNUSUAL
