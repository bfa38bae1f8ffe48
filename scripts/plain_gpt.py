"""The rival in the benchmarks: the default model (`model=gpt`) as one would write it for a single run.

nn.Linear, fused attention, fused AdamW, one model a process, batches from a memory map. It starts from the weights that
proxytrain would start from and reads the same text, so that its losses can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proxytrain.config.recipe import Recipe
from proxytrain.config.schedule import learning_rates
from proxytrain.corpus import Stream
from proxytrain.model.gpt import initial, views
from proxytrain.model.layout import layout
from proxytrain.model.parametrization import rule, scales
from proxytrain.plan.runs import Run

EPS = 1e-6


def conv(x: Tensor, taps: Tensor) -> Tensor:
    """Depthwise causal convolution: x (B, T, d), taps (n, d)."""
    out = x * taps[0]
    for j in range(1, len(taps)):
        out = out + F.pad(x, (0, 0, j, -j)) * taps[j]
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Block(nn.Module):
    def __init__(self, d: int, head: int, hidden: int):
        super().__init__()
        self.head = head
        self.norm_attention, self.norm_mlp = nn.RMSNorm(d, eps=EPS), nn.RMSNorm(d, eps=EPS)
        self.qkv, self.attention_out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.mlp_in, self.mlp_out = nn.Linear(d, hidden, bias=False), nn.Linear(hidden, d, bias=False)
        self.conv_attention, self.conv_mlp = nn.Parameter(torch.empty(3, d)), nn.Parameter(torch.empty(2, d))
        self.shift_keys, self.qk_gain = nn.Parameter(torch.empty(d)), nn.Parameter(torch.empty(d // head))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        B, T, d = x.shape
        q, k, v = self.qkv(conv(self.norm_attention(x), self.conv_attention)).split(d, dim=2)
        k = torch.lerp(k, F.pad(k, (0, 0, 1, -1)), self.shift_keys.to(k.dtype))
        q, k, v = (t.view(B, T, -1, self.head).transpose(1, 2) for t in (q, k, v))
        q = F.rms_norm(q, (self.head,), eps=EPS) * self.qk_gain[:, None, None]
        k = F.rms_norm(k, (self.head,), eps=EPS)
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.attention_out(y.transpose(1, 2).reshape(B, T, d))
        return x + self.mlp_out(F.relu(self.mlp_in(conv(self.norm_mlp(x), self.conv_mlp))).square())


class GPT(nn.Module):
    """From ids (B, T) and targets (B, T) to the mean loss; starts as proxytrain's member of the same recipe."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        m = recipe.model
        self.embedding = nn.Embedding(recipe.vocab, m.width)
        self.blocks = nn.ModuleList(Block(m.width, m.head_size, round(m.mlp_ratio * m.width)) for _ in range(m.depth))
        self.norm = nn.RMSNorm(m.width, eps=EPS)
        self.readout = nn.Linear(m.width, recipe.vocab)
        self.scale = scales(m, recipe.parametrization).readout
        frequency = m.rope_base ** (-torch.arange(0, m.head_size, 2) / m.head_size)
        angle = torch.arange(m.context)[:, None] * frequency
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        weights = layout(m, recipe.vocab)
        flat = initial(weights, m, recipe.parametrization, recipe.init_seed)
        for name, value in views(flat[None], weights).items():
            self.home(name).data.copy_(value[0].T if isinstance(self.module(name), nn.Linear) else value[0])

    def module(self, name: str) -> object:
        """What proxytrain calls `name`: a module, or a parameter by itself."""
        found: object = self
        for part in ("readout" if name == "logit_bias" else f"blocks.{name}" if name[0].isdigit() else name).split("."):
            found = getattr(found, part)
        return found if name != "logit_bias" else found.bias  # type: ignore[attr-defined]

    def home(self, name: str) -> nn.Parameter:
        found = self.module(name)
        return found.weight if isinstance(found, nn.Module) else found  # type: ignore[return-value]

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        out = F.linear(self.norm(x), self.readout.weight) * self.scale + self.readout.bias
        return F.cross_entropy(out.float().flatten(0, 1), targets.flatten())


class Training:
    """One run: `updates(n)` makes so many and returns their losses, read once at the end."""

    def __init__(self, run: Run, tokens: np.ndarray, device: str = "cpu", mode: str = "eager", first: int = 0):
        self.run, self.device, self.position = run, device, first
        r = run.recipe
        self.model = GPT(r).to(device)
        forward = {"eager": lambda f: f, "compiled": torch.compile}.get(
            mode, lambda f: torch.compile(f, mode="reduce-overhead")
        )
        self.forward = forward(self.model)
        self.stream = Stream(tokens, r.model.context, r.data_seed)
        groups = []
        for w in layout(r.model, r.vocab):
            size = {"width": r.model.width, "fan_in": w.shape[0], "depth": r.model.depth}
            row = rule(w.kind, r.parametrization, **size, block="." in w.name)
            groups.append((self.model.home(w.name), row.lr, row.decay * r.optimizer.weight_decay / (row.lr * run.lr)))
        kinds = sorted({(lr, decay) for _, lr, decay in groups})
        o = r.optimizer
        self.optimizer = torch.optim.AdamW(
            [{"params": [p for p, *k in groups if tuple(k) == kind], "weight_decay": kind[1]} for kind in kinds],
            lr=run.lr,
            betas=(o.beta1, o.beta2),
            eps=o.eps,
            fused=True,
        )
        self.multipliers = [kind[0] for kind in kinds]
        self.bf16 = r.precision == "bfloat16"

    def updates(self, count: int) -> list[float]:
        r = self.run.recipe
        losses = []
        for ids, targets, rate in self._batches(count):
            for group, by in zip(self.optimizer.param_groups, self.multipliers):
                group["lr"] = rate * by
            with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
                loss = self.forward(ids, targets)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if r.optimizer.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), r.optimizer.clip)
            self.optimizer.step()
            losses.append(loss.detach().clone())
        return torch.stack(losses).tolist()

    def _batches(self, count: int) -> Iterator[tuple[Tensor, Tensor, float]]:
        B = self.run.recipe.batch_tokens
        for _ in range(count):
            ids, targets = (torch.from_numpy(x).to(self.device) for x in self.stream.read(self.position, B))
            self.position += B
            yield ids, targets, float(learning_rates(self.run.phases, np.array([self.position]))[0])

    @torch.no_grad()
    def evaluate(self, val: np.ndarray, sequences: int = 64) -> float:
        """Mean loss on the validation tokens."""
        T = self.run.recipe.model.context
        windows = val[: (len(val) - 1) // T * T + 1].astype(np.int64)
        ids, targets = (torch.from_numpy(x.reshape(-1, T)).to(self.device) for x in (windows[:-1], windows[1:]))
        total = sum(
            self.model(ids[i : i + sequences], targets[i : i + sequences]).item() * len(ids[i : i + sequences])
            for i in range(0, len(ids), sequences)
        )
        return total / len(ids)
