"""Parameters, FLOPs and bytes of a model, by component; the memory of a pack. No torch.

FLOPs are those of the matrix products, two a multiply-add, backward = twice forward; attention counts the causal half.
Which components make up "N" is a choice of the fit: `params` gives them all.
"""

from __future__ import annotations

import msgspec

from proxytrain.config.schema import Model
from proxytrain.model.layout import flat_size, layout, mlp_size

SCRATCH = {"adamw": 0.0, "muon": 4.5, "sgd_sai": 2.2}  # vectors a member, while an optimizer's update is made
SLACK = 1.45  # what a CPU's allocator needs more after thousands of updates, as its heap falls into pieces
NATIVE_KEPT = 0.66  # of what backward keeps on a CPU by `pack_bytes`, where the CPU kernels do what they can
GPU_KEPT = {"float32": 0.8, "bfloat16": 0.6}  # of what backward keeps on a CPU, in bytes: what is fused is not kept
GPU_BYTES = 100_000_000  # workspaces of its libraries, which torch counts as the pack's
LOGITS = 1 << 24  # of a member that are made at once, where there are more than two times as many: 64 MB


class ParamCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of parameters by component; a tied readout has none of its own."""

    embedding: int
    attention: int
    mlp: int
    norm: int
    readout: int

    @property
    def total(self) -> int:
        """Return the number of all parameters."""
        return self.embedding + self.non_embedding + self.readout

    @property
    def non_embedding(self) -> int:
        """Return N as most laws count it: all parameters but those of embedding and readout."""
        return self.attention + self.mlp + self.norm


def params(model: Model, vocab: int) -> ParamCounts:
    """Return the numbers of parameters of a model."""
    counts = dict.fromkeys(ParamCounts.__struct_fields__, 0)
    for weight in layout(model, vocab):
        counts[weight.component] += weight.size
    return ParamCounts(**counts)


def flops_per_token(model: Model, vocab: int) -> float:
    """Training FLOPs a token: forward and backward, attention's scores and the readout included."""
    d, hidden = model.width, mlp_size(model)
    block = (2 if model.shared_qk else 3) * d * d + d * d + d * hidden * (3 if model.mlp == "swiglu" else 2)
    scores = d * (model.context + 1)  # q k' and a v over (T + 1) / 2 positions each, on average
    return 6.0 * (model.depth * (block + scores) + d * vocab)


def activation_floats(model: Model, vocab: int) -> int:
    """Floats a token that forward writes: rows of each block, and three of the logits (softmax and gradient)."""
    return model.depth * ((22 - model.shared_qk) * model.width + _hidden_rows(model)) + 6 * model.width + 3 * vocab


def update_bytes(model: Model, vocab: int, members: int, tokens: int, precision: str = "float32") -> int:
    """Bytes that an update of K members with `tokens` tokens each must move.

    Of the flat buffers, float32, weights are read twice, gradients written and read, and AdamW reads and writes weights
    and moments: ten passes. Activations are written forward, read backward, and their gradients written and read.
    """
    activations = tokens * activation_floats(model, vocab) * (2 if precision == "bfloat16" else 4)
    return members * (40 * flat_size(layout(model, vocab)) + 4 * activations)


def orthogonal_flops(model: Model, vocab: int, iterations: int) -> float:
    """FLOPs of Muon's Newton-Schulz iterations in one update of one member; `flops_per_token` leaves them out."""
    total = 0.0
    for w in layout(model, vocab):
        if w.matrix:
            short, long = sorted((w.shape[0], w.shape[1] // w.parts))
            total += w.parts * iterations * (4.0 * short**2 * long + 2.0 * short**3)
    return total


def pack_bytes(
    model: Model,
    vocab: int,
    members: int,
    tokens: int,
    optimizer: str = "adamw",
    averaged: int = 0,
    *,
    device: str = "cpu",
    precision: str = "float32",
    native: bool = False,
) -> int:
    """Peak memory of K members that read `tokens` tokens each at once; an upper bound, for long runs too.

    Flat buffers (weights, gradients, two moments, scratch), and what backward keeps, logits included, or what the
    optimizer needs meanwhile, whichever is more; on a CPU the allocator's slack, on a GPU its libraries' workspaces;
    for `averaged` members the mean of their weights, in float64. The process itself (torch) is not counted. `native`: a
    CPU's worker has the CPU kernels (see `cost.native`).
    """
    kept = tokens * (
        model.depth * ((14 - model.shared_qk) * model.width + _hidden_rows(model)) + 11 * model.width + 1200
    )
    logits = 2 * tokens * vocab
    if tokens * vocab > 2 * LOGITS:  # made in pieces, each of which leaves its gradients
        logits = 6 * LOGITS + 3 * model.width * (vocab + tokens)
    on_cpu = NATIVE_KEPT if native and precision == "float32" else 1.0
    fixed, slack, share = (GPU_BYTES, 1.0, GPU_KEPT[precision]) if device == "cuda" else (0, SLACK, on_cpu)
    flat = flat_size(layout(model, vocab))
    own = members * (7 * flat + max(share * kept + logits, SCRATCH[optimizer] * flat))
    return fixed + int(slack * 4 * (own + 2 * averaged * flat) + 16 * flat * bool(averaged))


def _hidden_rows(model: Model) -> int:
    return (5 if model.mlp == "swiglu" else 3) * mlp_size(model)
