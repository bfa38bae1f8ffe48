"""Training on a source whose entropy is known, and a learning rate that transfers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import train

STATES = 16


def markov(path: Path, tokens: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A first-order source written as uint16 tokens; returns its transition matrix and the tokens."""
    transitions = np.random.default_rng(0).dirichlet(np.full(STATES, 0.3), size=STATES)
    steps = np.random.default_rng(seed).random(tokens)
    edges = transitions.cumsum(1)
    out = np.empty(tokens, dtype=np.uint16)
    state = 0
    for i, u in enumerate(steps):
        state = min(int(np.searchsorted(edges[state], u)), STATES - 1)
        out[i] = state
    out.tofile(path)
    return transitions, out


def test_a_markov_source_is_learnt_to_its_entropy_rate_and_never_below(tmp_path, ask):
    markov(tmp_path / "train.bin", 400_000, seed=1)
    transitions, val = markov(tmp_path / "val.bin", 40_000, seed=2)
    asked = ask(
        "data=tokens",
        f"data.train=[{tmp_path}/train.bin]",
        f"data.val=[{tmp_path}/val.bin]",
        f"data.vocab_size={STATES}",
        "data.val_tokens=40000",
        "tokens=200K",
        "batch_tokens=512",
        "warmup=10K",
        "lr=.02",
        text=[],
    )
    train(asked)
    loss = asked.store.result(asked.runs[0].id).final_loss
    stationary = np.linalg.matrix_power(transitions, 1000)[0]
    rate = -(stationary[:, None] * transitions * np.log(transitions)).sum()
    T = 32
    read = val[: (len(val) - 1) // T * T + 1]
    best = -np.log(transitions[read[:-1], read[1:]]).mean()  # of the source itself, on the tokens that are read
    assert best == pytest.approx(rate, rel=0.02)
    assert best < loss < 1.01 * best


@pytest.mark.slow
def test_under_mup_the_best_rate_stays_put_and_under_sp_it_does_not(ask):
    rates = [0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128]
    best = {}
    for name in ("mup", "sp"):
        asked = ask(
            f"parametrization={name}",
            "parametrization.base_width=16",
            f"sweep.grids=[{{model.width:[16,64],lr:{rates}}}]".replace(" ", ""),
            "tokens=49152",
            "batch_tokens=512",
            "warmup=4096",
        )
        train(asked, largest=16)
        for width in (16, 64):
            losses = [asked.store.result(r.id).final_loss or 99.0 for r in asked.runs if r.recipe.model.width == width]
            best[name, width] = int(np.argmin(losses))
    assert abs(best["mup", 64] - best["mup", 16]) <= 1
    assert best["sp", 64] < best["mup", 64]
