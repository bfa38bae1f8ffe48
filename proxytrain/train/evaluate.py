"""Validation loss of the members of a pack, on the same tokens in the same order for all runs of a corpus."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from proxytrain.arrays import Array
from proxytrain.config.schema import Model
from proxytrain.kernels.reference import cross_entropy
from proxytrain.model.gpt import logits, views
from proxytrain.model.layout import Weight
from proxytrain.model.parametrization import Scales

Text = tuple[Array, Array]  # inputs and targets (S, T)


def sequences(val: Array, context: int, most: int | None = None) -> Text:
    """Inputs and targets (S, T) of the validation tokens, at most `most` tokens of them."""
    count = (len(val) - 1) // context
    if most is not None:
        count = max(1, min(count, most // context))
    windows = val[np.arange(count)[:, None] * context + np.arange(context + 1)].astype(np.int64)
    return windows[:, :-1], windows[:, 1:]


@torch.no_grad()
def losses(
    flat: Tensor,
    weights: tuple[Weight, ...],
    model: Model,
    scales: Scales,
    text: tuple[Array, Array],
    chunk: int,
) -> Array:
    """Mean loss of every sequence (K, S) in nats a token, float64.

    Parameters
    ----------
    flat : weights (K, P)
    text : inputs and targets (S, T)
    chunk : sequences read at once; part of the result's bits, so it depends on the recipe only
    """
    K, device = flat.shape[0], flat.device
    named = views(flat, weights)
    parts = []
    for i in range(0, len(text[0]), chunk):
        ids, targets = (torch.from_numpy(t[i : i + chunk]).to(device) for t in text)
        out = logits(named, ids.expand(K, *ids.shape), model, scales)
        loss = cross_entropy(out, targets.reshape(1, -1).expand(K, -1))
        parts.append(loss.view(K, *ids.shape).double().mean(2).cpu().numpy())
    return np.concatenate(parts, axis=1)


def summary(losses: Array) -> tuple[float, float]:
    """Mean over sequences (S,) and its sampling error."""
    se = float(losses.std(ddof=1) / math.sqrt(len(losses))) if len(losses) > 1 else 0.0
    return float(losses.mean()), se
