"""`scripts/copying.py`: where a string repeats, and whether heads look at what followed it."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import copying

from proxytrain.config.compose import compose
from proxytrain.config.schema import Model, Parametrization, build_config
from proxytrain.corpus import prepare
from proxytrain.train.export import GPT


def test_the_longest_string_seen_before_is_found_and_what_followed_it():
    text = np.array([[1, 2, 3, 9, 2, 3, 4, 1, 2, 3, 9]])
    length, after, right = copying.repeats(text[:, :-1], text[:, 1:])
    assert length.tolist() == [[0, 0, 0, 0, 1, 2, 0, 1, 2, 3]]
    assert after.tolist() == [[-1, -1, -1, -1, 2, 3, -1, 1, 2, 3]]
    assert right.tolist() == [[False, False, False, False, True, False, False, True, True, True]]


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_a_closing_quote_is_one_right_after_text(tokenizer, tmp_path):
    for i in range(20):
        (tmp_path / f"{i}.txt").write_text("He said 'yes' (or `no`).\n" * (100 + i))
    words = ["data=files", f"data.files=[{tmp_path}/*.txt]", f"data.tokenizer={tokenizer}", "data.vocab_size=300"]
    corpus = prepare(build_config(compose([*words, "data.val_fraction=0.2"])).data, tmp_path)
    ids, targets = corpus.val[None, :200], corpus.val[None, 1:201]
    found = copying.closing(corpus, ids, targets)
    read = Tokenizer.from_file(str(corpus.folder / "tokenizer.json")).decode if tokenizer == "bpe" else bytes
    ends = [read(ids[0, : i + 1].tolist()) for i in np.flatnonzero(found[0])]
    ends = [end.decode() if isinstance(end, bytes) else end for end in ends]
    assert {end[-2:] for end in ends} == {"es", "no"} | ({"o`"} if tokenizer == "bytes" else set())


def test_losses_are_the_model_s_and_a_head_that_looks_everywhere_gives_each_place_its_share():
    model = Model(
        width=16,
        depth=1,
        head_size=8,
        context=8,
        mlp="relu2",
        mlp_ratio=4.0,
        rope_base=1e4,
        qk_norm=True,
        tied=False,
        logit_bias=True,
        shift_keys=True,
        conv_attention=3,
        conv_mlp=2,
    )
    gpt = GPT(model, Parametrization(name="mup", base_width=16, embedding_std=1.0, readout_std=0.0), 32)
    for name, weight in gpt.named_parameters():
        if name.endswith("qk_gain"):
            torch.nn.init.zeros_(weight)
    ids = np.tile(np.arange(4), (3, 2))
    long = np.zeros(ids.shape, bool)
    long[:, 7] = True  # sees eight positions, itself included
    losses, induction = copying.look(gpt, ids, ids, np.full(ids.shape, 4), long)
    assert losses == pytest.approx(math.log(32), rel=1e-5)
    assert induction == pytest.approx(1 / 8, rel=1e-5)
