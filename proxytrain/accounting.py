"""Parameters, FLOPs and bytes of a model, by component; the memory of a pack. No torch.

FLOPs are those of the matrix products, two a multiply-add, backward = twice forward; attention counts the causal half.
Which components make up "N" is a choice of the fit: `params` gives them all.
"""

from __future__ import annotations

from proxytrain.config import Model
from proxytrain.layout import flat_size, layout, mlp_size

COMPONENTS = ("embedding", "attention", "mlp", "norm", "readout")


def params(model: Model, vocab: int) -> dict[str, int]:
    """Number of parameters by component; a tied readout has none of its own."""
    counts = dict.fromkeys(COMPONENTS, 0)
    for weight in layout(model, vocab):
        counts[weight.component] += weight.size
    return counts


def non_embedding(counts: dict[str, int]) -> int:
    """N as most laws count it: all but embedding and readout."""
    return counts["attention"] + counts["mlp"] + counts["norm"]


def flops_per_token(model: Model, vocab: int) -> float:
    """Training FLOPs a token: forward and backward, attention's scores and the readout included."""
    d, hidden = model.width, mlp_size(model)
    block = d * 3 * d + d * d + d * hidden * (3 if model.mlp == "swiglu" else 2)
    scores = d * (model.context + 1)  # q k' and a v over (T + 1) / 2 positions each, on average
    return 6.0 * (model.depth * (block + scores) + d * vocab)


def pack_bytes(model: Model, vocab: int, members: int, batch_tokens: int) -> int:
    """Peak memory of a pack of K members in float32: flat buffers, activations and logits.

    Buffers: weights, gradients, two moments and two scratch rows of the optimizer. Activations: what backward keeps of
    each block, in rows of `width`, and three copies of the logits (their gradient and the softmax included).
    """
    size, hidden = flat_size(layout(model, vocab)), mlp_size(model)
    rows = 22 * model.width + (5 if model.mlp == "swiglu" else 3) * hidden
    a_token = model.depth * rows + 6 * model.width + 3 * vocab
    return 4 * members * (6 * size + batch_tokens * a_token)
