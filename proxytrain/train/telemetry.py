"""What is seen of members around a sampled update: how large logits, activations, gradients, weights and steps are.

One more forward pass over a part of the update's own batch, without gradients, and a look at the flat buffers before
and after. Nothing here changes what is trained: the weights are copied, and buffers only read.

| column | what |
|---|---|
| `attention_logit_max.BLOCK` | largest attention logit, scaled, before the softmax |
| `activation_rms.BLOCK` | root mean square of the residual stream after the block |
| `log_z` | mean log of the output's partition function |
| `grad_rms.KIND` | of the gradient before clipping |
| `param_rms.KIND` | of the weights before the update |
| `update_rms.KIND` | of the change of the weights by the update, its rate and decay included |
| `under_eps.KIND` | of the weights that AdamW trains: share whose root second moment, bias corrected, is below eps |

A kind is a component of `layout`: embedding, attention, mlp, norm, readout. Blocks count from 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from proxytrain.config.recipe import Recipe
from proxytrain.config.schema import AdamW, Muon
from proxytrain.model.gpt import log_partition, views
from proxytrain.model.layout import Weight, layout
from proxytrain.model.parametrization import Scales
from proxytrain.optim.state import Multipliers, State
from proxytrain.train.program import autocast

TOKENS = 1024  # of the batch that the forward pass reads, in whole sequences, at least one
BY_BLOCK = ("attention_logit_max", "activation_rms")
BY_KIND = ("grad_rms", "param_rms", "update_rms")


def columns(recipe: Recipe) -> list[str]:
    """Names of the values of one sample, in order."""
    weights = layout(recipe.model, recipe.vocab)
    blocks = [f"{name}.{i}" for name in BY_BLOCK for i in range(recipe.model.depth)]
    kinds = [f"{name}.{kind}" for name in BY_KIND for kind in _slices(weights)]
    return [*blocks, "log_z", *kinds, *(f"under_eps.{kind}" for kind in _slices(_of_adamw(weights, recipe)))]


class Sample:
    """Some members at one update: made before it, shown the gradients within it, asked afterwards.

    Parameters
    ----------
    weights : (K, P), of all members
    at : which members are looked at (k,)
    ids : (k or 1, B, T), the update's inputs
    """

    def __init__(self, weights: Tensor, at: Tensor, ids: Tensor, recipe: Recipe, scales: Scales):
        self.recipe, self.at = recipe, at
        self.before = weights[at]
        weights_of = layout(recipe.model, recipe.vocab)
        self.slices, self.of_adamw = _slices(weights_of), _slices(_of_adamw(weights_of, recipe))
        self.forward = _forward(self.before, ids, recipe, scales)
        self.grad: Tensor

    def gradient(self, grad: Tensor) -> None:
        """Look at gradients (K, P), before they are clipped."""
        self.grad = self._rms(grad[self.at])

    def after(self, state: State, by: Multipliers) -> Tensor:
        """All values (k, columns), once the update is made."""
        found = [self.forward, self.grad, self._rms(self.before), self._rms(state.weights[self.at].sub_(self.before))]
        o = self.recipe.optimizer
        if isinstance(o, AdamW):  # AdamW, or Muon for what it leaves to AdamW
            root = state.second[self.at].div_((1 - o.beta2 ** state.updates[self.at]).float()).sqrt_()
            found.append(_means(root.lt_(o.eps * by.eps), self.of_adamw))
        return torch.cat(found, 1)

    def _rms(self, values: Tensor) -> Tensor:
        return _means(values.square(), self.slices).sqrt()


def _means(values: Tensor, slices: dict[str, list[slice]]) -> Tensor:
    """Means (k, kinds) of values (k, P) over the weights of each kind."""
    sums = [[values[:, s].sum(1) for s in of_kind] for of_kind in slices.values()]
    sizes = [sum(s.stop - s.start for s in of_kind) for of_kind in slices.values()]
    return torch.stack([torch.stack(s, 1).sum(1) / n for s, n in zip(sums, sizes)], 1)


@torch.no_grad()
def _forward(flat: Tensor, ids: Tensor, recipe: Recipe, scales: Scales) -> Tensor:
    """What a forward pass over a part of the inputs shows (k, 2 depth + 1)."""
    seen: dict[str, list[Tensor]] = {"attention logits": [], "residual stream": []}

    def watch(name: str, x: Tensor) -> None:
        what = name.partition(": ")[2]
        if what == "attention logits":
            seen[what].append(x.amax((1, 2)))
        elif what == "residual stream":
            seen[what].append(x.float().square().mean((1, 2)).sqrt())

    part = ids[:, : max(1, TOKENS // recipe.model.context)].expand(len(flat), -1, -1)
    weights = views(flat, layout(recipe.model, recipe.vocab))
    with autocast(recipe.precision, flat.device.type):
        log_z = log_partition(weights, part, recipe.model, scales, watch)
    return torch.stack([x.float() for x in (*seen["attention logits"], *seen["residual stream"], log_z)], 1)


def _of_adamw(weights: tuple[Weight, ...], recipe: Recipe) -> tuple[Weight, ...]:
    """The weights whose second moment an optimizer reads: of Muon's matrices it does not, SGD-SaI has none."""
    if isinstance(recipe.optimizer, Muon):
        return tuple(w for w in weights if not w.matrix)
    return weights if isinstance(recipe.optimizer, AdamW) else ()


def _slices(weights: tuple[Weight, ...]) -> dict[str, list[slice]]:
    """Where the weights of each kind lie in the flat vector."""
    found: dict[str, list[slice]] = {}
    for w in weights:
        found.setdefault(w.component, []).append(slice(w.offset, w.offset + w.size))
    return found
