"""`scripts/copying.py`: where a string repeats, and whether heads look at what followed it."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import copying

from proxytrain.config import Model, Parametrization
from proxytrain.train.export import GPT


def test_the_longest_string_seen_before_is_found_and_what_followed_it():
    text = np.array([[1, 2, 3, 9, 2, 3, 4, 1, 2, 3, 9]])
    length, after, right = copying.repeats(text[:, :-1], text[:, 1:])
    assert length.tolist() == [[0, 0, 0, 0, 1, 2, 0, 1, 2, 3]]
    assert after.tolist() == [[-1, -1, -1, -1, 2, 3, -1, 1, 2, 3]]
    assert right.tolist() == [[False, False, False, False, True, False, False, True, True, True]]


def test_losses_are_the_model_s_and_a_head_that_looks_everywhere_gives_each_place_its_share():
    model = Model(16, 1, 8, 8, "relu2", 4.0, 1e4, True, False, True, True, 3, 2)
    gpt = GPT(model, Parametrization("mup", 16, 1.0, 0.0), 32)
    for name, weight in gpt.named_parameters():
        if name.endswith("qk_gain"):
            torch.nn.init.zeros_(weight)
    ids = np.tile(np.arange(4), (3, 2))
    long = np.zeros(ids.shape, bool)
    long[:, 7] = True  # sees eight positions, itself included
    losses, induction = copying.look(gpt, ids, ids, np.full(ids.shape, 4), long)
    assert losses == pytest.approx(math.log(32), rel=1e-5)
    assert induction == pytest.approx(1 / 8, rel=1e-5)
