"""The weights of one model as slices of a flat vector: names, shapes, kinds and initial values, without torch.

A pack keeps K such vectors as one (K, P) buffer. Every slice starts at a multiple of 16 floats (64 bytes), so P is
somewhat more than the number of parameters; the gaps stay zero.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from proxytrain.config.schema import Model

ALIGN = 16
TAPS = {2: (0.8, 0.2), 3: (0.6, 0.3, 0.1)}
SHARED_QK_GAIN = 3.0  # of heads that compare tokens from the first update on
UNIFORM_GAIN = 0.1  # of heads that at first look at all alike


@dataclass(frozen=True)
class Weight:
    """One weight: `fill` is the initial value of a gain (one a leading row), None where it is drawn at random."""

    name: str
    shape: tuple[int, ...]
    kind: str  # of the parametrization's table
    component: str  # embedding | attention | mlp | norm | readout
    offset: int = 0
    fill: tuple[float, ...] | None = None
    parts: int = 1  # matrices that lie side by side in it

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def matrix(self) -> bool:
        """Whether it is a matrix (or several) inside a block."""
        return self.kind in ("hidden", "residual")


def mlp_size(model: Model) -> int:
    """Hidden size of the MLP: mlp_ratio * width, times 2/3 for the gated one, to a multiple of 8."""
    size = model.mlp_ratio * model.width * (2 / 3 if model.mlp == "swiglu" else 1)
    return max(8, round(size / 8) * 8)


@functools.lru_cache(maxsize=1024)
def layout(model: Model, vocab: int) -> tuple[Weight, ...]:
    """All weights in order, with their offsets."""
    placed, offset = [], 0
    for w in _weights(model, vocab):
        placed.append(replace(w, offset=offset))
        offset += aligned(w.size)
    return tuple(placed)


def flat_size(weights: tuple[Weight, ...]) -> int:
    """P: length of the flat vector, gaps included."""
    return weights[-1].offset + aligned(weights[-1].size)


def aligned(size: int) -> int:
    """Floats that a weight takes in the vector, the gap after it included."""
    return math.ceil(size / ALIGN) * ALIGN


def _weights(model: Model, vocab: int) -> Iterator[Weight]:
    d, hidden, heads = model.width, mlp_size(model), model.width // model.head_size
    yield Weight("embedding", (vocab, d), "embedding", "embedding")
    for i in range(model.depth):
        yield Weight(f"{i}.norm_attention", (d,), "gain", "norm", fill=(1.0,))
        if model.conv_attention:
            taps = TAPS[model.conv_attention]
            yield Weight(f"{i}.conv_attention", (len(taps), d), "gain", "attention", fill=taps)
        if model.shared_qk:
            yield Weight(f"{i}.qv", (d, 2 * d), "hidden", "attention", parts=2)
        else:
            yield Weight(f"{i}.qkv", (d, 3 * d), "hidden", "attention", parts=3)
        if model.shift_keys:
            yield Weight(f"{i}.shift_keys", (d,), "gain", "attention", fill=(1.0 if model.shared_qk else 0.5,))
        if model.qk_norm:
            gain = SHARED_QK_GAIN if model.shared_qk else 1.0
            fill = (gain, UNIFORM_GAIN if model.uniform_heads else gain) * heads
            yield Weight(f"{i}.qk_gain", (heads,), "gain", "attention", fill=fill[:heads])
        yield Weight(f"{i}.attention_out", (d, d), "residual", "attention")
        yield Weight(f"{i}.norm_mlp", (d,), "gain", "norm", fill=(1.0,))
        if model.conv_mlp:
            taps = TAPS[model.conv_mlp]
            yield Weight(f"{i}.conv_mlp", (len(taps), d), "gain", "mlp", fill=taps)
        gated = 2 if model.mlp == "swiglu" else 1
        yield Weight(f"{i}.mlp_in", (d, gated * hidden), "hidden", "mlp", parts=gated)
        yield Weight(f"{i}.mlp_out", (hidden, d), "residual", "mlp")
    yield Weight("norm", (d,), "gain", "norm", fill=(1.0,))
    if not model.tied:
        yield Weight("readout", (d, vocab), "readout", "readout")
    if model.logit_bias:
        yield Weight("logit_bias", (vocab,), "bias", "readout", fill=(0.0,))
