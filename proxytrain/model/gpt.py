"""The GPT with a model axis: every weight has K leading rows, one a member of the pack. K = 1 is the plain case.

Shapes: K members, B sequences, T positions, N = B * T, d width, H heads of size h, V vocabulary. The forward pass is a
function of the weights, which are views of the pack's flat buffer; members meet nowhere but in the sum of their losses.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from proxytrain.config.schema import Model, Parametrization
from proxytrain.kernels import cpu as native
from proxytrain.kernels.reference import EPS, causal_attention, cross_entropy, normed, squared_relu
from proxytrain.model.accounting import LOGITS
from proxytrain.model.layout import Weight, aligned, flat_size
from proxytrain.model.parametrization import Scales, rule

Weights = dict[str, Tensor]
Rope = tuple[Tensor, Tensor]
Watch = Callable[[str, Tensor], None]

ATTENTION_ROWS = 128  # of attention's logits that are looked at together


def initial(weights: tuple[Weight, ...], model: Model, parametrization: Parametrization, init_seed: int) -> Tensor:
    """Initial flat vector (P,), float32, on the CPU.

    Each tensor is a function of (`init_seed`, its name, its shape) only, never of the pack it starts in.
    """
    flat = torch.zeros(flat_size(weights))
    for w in weights:
        target = flat[w.offset : w.offset + w.size].view(w.shape)
        if w.fill is not None:
            target.copy_(torch.tensor(w.fill).reshape(-1, *[1] * (len(w.shape) - 1)).expand(w.shape))
            continue
        fan_in = w.shape[0] if w.kind != "embedding" else w.shape[1]
        size = {"width": model.width, "fan_in": fan_in, "depth": model.depth}
        std = rule(w.kind, parametrization, **size, block="." in w.name).std
        key = hashlib.blake2b(f"{init_seed}/{w.name}/{w.shape}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)
        target.copy_(std * torch.randn(w.shape, generator=generator))
    return flat


def views(flat: Tensor, weights: tuple[Weight, ...]) -> Weights:
    """The weights as views (K, *shape) of a flat buffer (K, P)."""
    pieces = flat.split([aligned(w.size) for w in weights], dim=1)  # its gradient is one concatenation
    return {w.name: piece[:, : w.size].unflatten(1, w.shape) for w, piece in zip(weights, pieces)}


def logits(
    weights: Weights, ids: Tensor, model: Model, scales: Scales, rope: Rope | None = None, watch: Watch | None = None
) -> Tensor:
    """Next-token logits (K, N, V) of sequences `ids` (K, B, T); `rope` is `rope_table`'s, made here if it is not given.

    `watch` is shown what the modules add and make: (name, (K, N, width or V)); of attention logits, scaled and masked,
    the largest of every position and head (K, N, H).

    A position sees itself and earlier ones of its own sequence only.
    """
    out = _readout(weights, _features(weights, ids, model, scales, rope, watch), model, scales)
    if watch:
        watch("logits", out)
    return out


def objective(
    weights: Weights,
    ids: Tensor,
    targets: Tensor,
    model: Model,
    scales: Scales,
    z_loss: float = 0.0,
    rope: Rope | None = None,
) -> tuple[Tensor, Tensor]:
    """What training minimises (K,), and the mean losses (K,) in nats a token, at ids and targets (K, B, T).

    Many logits are never in memory at once: positions are then read out piece by piece, and a piece leaves its
    gradients behind instead of its logits. What is minimised is another function of the weights with the same gradient.
    """
    x, targets = _features(weights, ids, model, scales, rope), targets.flatten(1)
    N, V = targets.shape[1], weights["embedding"].shape[1]
    if N * V <= 2 * LOGITS:
        minimised, loss = _minimised(weights, x, targets, model, scales, z_loss)
        return minimised / N, loss.detach() / N

    def piece(x: Tensor, read: Weights, targets: Tensor) -> tuple[Tensor, Tensor]:
        minimised, loss = _minimised(read, x, targets, model, scales, z_loss)
        return minimised.sum() / N, loss / N

    names = ["embedding" if model.tied else "readout", *["logit_bias"] * model.logit_bias]
    read = {n: weights[n] for n in names}
    fixed = {n: w.detach() for n, w in read.items()}
    total, sums, slopes = x.new_zeros(len(x)), {n: torch.zeros_like(w) for n, w in fixed.items()}, []
    pieces = (t.split(max(1, LOGITS // V), 1) for t in (x.detach(), targets))
    for here, goal in zip(*pieces):
        (slope, by_weight), loss = torch.func.grad(piece, (0, 1), has_aux=True)(here, fixed, goal)
        slopes.append(slope)
        sums = {n: s + by_weight[n] for n, s in sums.items()}
        total = total + loss
    linear = [(x, torch.cat(slopes, 1)), *((read[n], s) for n, s in sums.items())]
    return sum(((a * slope).flatten(1).sum(1) for a, slope in linear), x.new_zeros(len(x))), total


def log_partition(weights: Weights, ids: Tensor, model: Model, scales: Scales, watch: Watch) -> Tensor:
    """Mean log Z of the outputs (K,) at ids (K, B, T), read out piece by piece; `watch` is shown what `logits` says but
    the logits themselves.
    """
    x = _features(weights, ids, model, scales, watch=watch)
    pieces = x.split(max(1, LOGITS // weights["embedding"].shape[1]), 1)
    sums = [_readout(weights, piece, model, scales).float().logsumexp(2).sum(1) for piece in pieces]
    return torch.stack(sums).sum(0) / x.shape[1]


def _features(
    weights: Weights, ids: Tensor, model: Model, scales: Scales, rope: Rope | None = None, watch: Watch | None = None
) -> Tensor:
    """What the readout reads (K, N, d); see `logits`."""
    K, B, T = ids.shape
    rope = rope or rope_table(T, rotated(model), model.rope_base, ids.device)
    x = _embed(weights["embedding"], ids.reshape(K, B * T))  # (K, N, d)
    for i in range(model.depth):
        w = {name.split(".", 1)[1]: value for name, value in weights.items() if name.startswith(f"{i}.")}
        x, h = normed(x, w["norm_attention"], w.get("conv_attention"), T)
        name = f"block {i + 1}"
        see = functools.partial(watch, f"{name}: attention logits") if watch else None
        heads = _attention(h, w, rope, model, B, T, see)
        attention = _scaled(torch.bmm(heads, w["attention_out"]), scales.branch)
        x = x + attention
        x, h = normed(x, w["norm_mlp"], w.get("conv_mlp"), T)
        mlp = _scaled(torch.bmm(_activation(torch.bmm(h, w["mlp_in"]), model.mlp), w["mlp_out"]), scales.branch)
        x = x + mlp
        if watch:
            for part, seen in (("attention", attention), ("mlp", mlp), ("residual stream", x)):
                watch(f"{name}: {part}", seen)
    return normed(x, weights["norm"], None, T)[1]


def _readout(weights: Weights, x: Tensor, model: Model, scales: Scales) -> Tensor:
    """Logits (K, N, V) of features (K, N, d); scale and bias are the product's own, logits being many."""
    readout = weights["embedding"].transpose(1, 2) if model.tied else weights["readout"]
    if model.logit_bias:
        return torch.baddbmm(weights["logit_bias"][:, None], x, readout, alpha=scales.readout)
    return torch.bmm(_scaled(x, scales.readout), readout)


def _minimised(
    weights: Weights, x: Tensor, targets: Tensor, model: Model, scales: Scales, z_loss: float
) -> tuple[Tensor, Tensor]:
    """Sums (K,) over the positions of features (K, N, d): loss with z-loss (2204.02311), and loss."""
    out = _readout(weights, x, model, scales)
    loss = cross_entropy(out, targets).sum(1)
    return loss + z_loss * out.float().logsumexp(2).square().sum(1) if z_loss else loss, loss


def _scaled(x: Tensor, by: float) -> Tensor:
    return x if by == 1.0 else x * by


def _embed(table: Tensor, ids: Tensor) -> Tensor:
    """Rows (K, N, d) of the members' tables (K, V, d); one lookup in the tables laid end to end."""
    K, V, d = table.shape
    first = torch.arange(K, device=ids.device)[:, None] * V
    return F.embedding(ids + first, table.reshape(K * V, d))


def _shift(x: Tensor, T: int) -> Tensor:
    """x (K, B*T, d) moved one position later within each sequence, a zero coming in."""
    return F.pad(x.unflatten(1, (-1, T)), (0, 0, 1, -1)).flatten(1, 2)


def _attention(
    x: Tensor, w: Weights, rope: Rope, model: Model, B: int, T: int, watch: Callable[[Tensor], None] | None
) -> Tensor:
    K, N, d = x.shape
    qkv = torch.bmm(x, w["qv" if model.shared_qk else "qkv"])
    if watch is None and native.serves(qkv):
        parts = 2 if model.shared_qk else 3
        return native.attention(qkv, w.get("shift_keys"), w.get("qk_gain"), rope, parts, T, model.head_size)
    q, *k, v = qkv.split(d, dim=2)
    k = k[0] if k else q
    if "shift_keys" in w:
        k = torch.lerp(k, _shift(k, T), w["shift_keys"][:, None].to(k.dtype))
    heads = (K, B, T, d // model.head_size, model.head_size)
    q, k, v = q.reshape(heads), k.reshape(heads), v.reshape(heads)
    if model.qk_norm:
        q, k = F.rms_norm(q, q.shape[-1:], eps=EPS), F.rms_norm(k, k.shape[-1:], eps=EPS)
        q = q * w["qk_gain"][:, None, None, :, None]
    q, k = _rotate(q, rope), _rotate(k, rope)
    q, k, v = (y.flatten(0, 1) for y in (q, k, v))  # (K*B, T, H, h)
    if watch:
        watch(_largest_logits(q.transpose(1, 2), k.transpose(1, 2)).transpose(1, 2).reshape(K, N, -1))
    return causal_attention(q, k, v).reshape(K, N, d)


def _largest_logits(q: Tensor, k: Tensor) -> Tensor:
    """Largest attention logit of each position (n, H, T) of queries and keys (n, H, T, h), a few rows at once."""
    T, h = q.shape[2:]
    found = []
    for start in range(0, T, ATTENTION_ROWS):
        end = min(start + ATTENTION_ROWS, T)
        rows = (q[:, :, start:end] @ k[:, :, :end].transpose(2, 3)).float() / math.sqrt(h)
        later = torch.ones(end - start, end, dtype=torch.bool, device=q.device).triu(start + 1)
        found.append(rows.masked_fill(later, -math.inf).amax(-1))
    return torch.cat(found, 2)


def rotated(model: Model) -> int:
    """Floats of a head that the rotary embedding turns; the others compare what tokens are, however far apart."""
    return model.head_size // 4 if model.shared_qk else model.head_size


@functools.lru_cache(maxsize=8)
def rope_table(T: int, size: int, base: float, device: torch.device) -> Rope:
    """cos and sin (T, 1, size/2) of the rotary embedding (2104.09864)."""
    frequency = base ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
    angle = torch.arange(T, device=device, dtype=torch.float32)[:, None, None] * frequency
    return angle.cos(), angle.sin()


def _rotate(x: Tensor, rope: Rope) -> Tensor:
    """Heads (..., h) whose first floats, as many as the table is made for, are turned by their position."""
    cos, sin = (t.to(x.dtype) for t in rope)
    n = cos.shape[-1]
    a, b, rest = x.split([n, n, x.shape[-1] - 2 * n], dim=-1)
    turned = (a * cos - b * sin, b * cos + a * sin)
    return torch.cat((*turned, rest) if rest.shape[-1] else turned, dim=-1)


def _activation(x: Tensor, kind: str) -> Tensor:
    if kind == "swiglu":
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value
    return F.gelu(x) if kind == "gelu" else squared_relu(x)
