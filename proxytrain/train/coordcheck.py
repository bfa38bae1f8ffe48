"""Do activations keep their scale when a model grows? A few updates at several widths and depths, and the slopes.

Under a parametrization that transfers, mean |x| of every module is flat in width after a few updates, and mean |x| of
the residual stream and the logits in depth; where it grows, the best learning rate falls with size (2203.03466,
2505.01618). Flat activations are necessary for transfer, not sufficient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from msgspec.structs import replace

from proxytrain.arrays import Array
from proxytrain.config.schema import Config, Model
from proxytrain.corpus import Corpus, Stream
from proxytrain.errors import RequestError
from proxytrain.kernels.reference import cross_entropy
from proxytrain.model.gpt import initial, logits, views
from proxytrain.model.layout import layout
from proxytrain.model.parametrization import scales
from proxytrain.optim.multipliers import multipliers
from proxytrain.optim.state import State
from proxytrain.optim.update import update

FLAT_SLOPE = 0.1  # largest slope of log mean |x| against log size that counts as flat


@dataclass(frozen=True)
class Scan:
    """Mean |x| (updates + 1, sizes, seeds) of each module, at the `sizes` of one axis, "width" or "depth"."""

    axis: str
    sizes: tuple[int, ...]
    seen: dict[str, Array]

    def slope(self, module: str) -> float:
        """d log mean |x| / d log size after the last update."""
        y = np.log(self.seen[module][-1].mean(1) + 1e-30)
        return float(np.polyfit(np.log(self.sizes), y, 1)[0])

    @property
    def judged(self) -> dict[str, float]:
        """Slopes of the modules that must be flat: in depth a branch may shrink, what they add up to may not move."""
        branches = ("attention", "mlp") if self.axis == "depth" else ()
        return {m: self.slope(m) for m in self.seen if not m.endswith(branches)}

    @property
    def flat(self) -> bool:
        return all(map(self.fits, self.judged.values()))

    def fits(self, slope: float) -> bool:
        """Flat; in depth it may fall too, since what branches add at random, at the start, averages out."""
        return abs(slope) < FLAT_SLOPE or (self.axis == "depth" and slope < 0)


def scan(config: Config, corpus: Corpus, axis: str) -> Iterator[int | Scan]:
    """Train at each size; yields the size before it is trained, and at the end the Scan.

    Raises
    ------
    RequestError
        If fewer than two sizes are asked for, or one that no model can have.
    """
    c = config.coordcheck
    sizes = tuple(sorted(set(c.widths if axis == "width" else c.depths)))
    if len(sizes) < 2:
        raise RequestError(f"coordcheck.{axis}s={list(sizes)}: a slope needs at least two")
    wrong = [w for w in sizes if axis == "width" and w % config.model.head_size]
    if wrong:
        raise RequestError(
            f"coordcheck.widths={wrong[0]}: must be a multiple of model.head_size={config.model.head_size}"
        )
    seen: dict[str, Array] = {}
    for i, size in enumerate(sizes):
        yield size
        for name, values in _activations(replace(config, model=_sized(config.model, axis, size)), corpus).items():
            name = name if axis == "width" else name.partition(": ")[2] or name  # the last block's stands for all
            seen.setdefault(name, np.zeros((c.updates + 1, len(sizes), c.seeds)))[:, i] = values
    yield Scan(axis, sizes, seen)


def _sized(model: Model, axis: str, size: int) -> Model:
    return replace(model, width=size) if axis == "width" else replace(model, depth=size)


def _activations(config: Config, corpus: Corpus) -> dict[str, Array]:
    """Mean |x| (updates + 1, seeds) of each module, before the first and after every update, on one held batch."""
    model, c, B, T = config.model, config.coordcheck, config.batch_tokens, config.model.context
    vocab = corpus.manifest.vocab_size
    weights, factors = layout(model, vocab), scales(model, config.parametrization)
    flat = torch.stack([initial(weights, model, config.parametrization, seed) for seed in range(c.seeds)])
    state = State(flat, torch.zeros_like(flat), torch.zeros_like(flat), torch.zeros(c.seeds, 1, dtype=torch.float64))
    by = multipliers(weights, model, config.parametrization, config.optimizer)
    ids, targets = (torch.from_numpy(x) for x in Stream(corpus.train, T, 0).read(0, (c.updates + 1) * B))
    ids, targets = (x.view(c.updates + 1, 1, -1, T).expand(-1, c.seeds, -1, -1) for x in (ids, targets))
    lr = torch.full((c.seeds, 1), c.lr, dtype=torch.float64)
    out: dict[str, list[Array]] = {}

    def watch(name: str, x: torch.Tensor) -> None:
        if not name.endswith("attention logits"):
            out.setdefault(name, []).append(x.detach().abs().mean((1, 2)).numpy())

    for u in range(c.updates + 1):
        with torch.no_grad():
            logits(views(flat, weights), ids[-1], model, factors, watch=watch)
        if u == c.updates:
            break
        leaves = {name: view.detach().requires_grad_() for name, view in views(flat, weights).items()}
        loss = cross_entropy(logits(leaves, ids[u], model, factors), targets[u].flatten(1)).mean(1).sum()
        grads = torch.autograd.grad(loss, list(leaves.values()))
        clip = torch.full((c.seeds, 1), float(config.optimizer.clip or "inf"))
        update(state, grads, config.optimizer, weights, lr=lr, decay=torch.zeros_like(lr), clip=clip, by=by)
    return {name: np.array(values) for name, values in out.items()}
