"""Weights of finished runs as safetensors, and back as a plain model that knows nothing of packs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor, nn

from proxytrain.arrays import Array
from proxytrain.config.schema import Model, Parametrization
from proxytrain.errors import RequestError
from proxytrain.files.atomic import read_state
from proxytrain.model.gpt import logits
from proxytrain.model.layout import Weight, layout
from proxytrain.model.parametrization import scales
from proxytrain.store.store import Store


class GPT(nn.Module):
    """One model: parameters by name (`embedding`, `blocks.0.qkv`, ...), from ids (B, T) to logits (B, T, V).

    Products are x @ W: a matrix has the shape (in, out).
    """

    def __init__(self, config: Model, parametrization: Parametrization, vocab: int):
        super().__init__()
        self.config, self.vocab = config, vocab
        self.scales = scales(config, parametrization)
        self.blocks = nn.ModuleList(nn.Module() for _ in range(config.depth))
        self._names: list[tuple[str, nn.Module, str]] = []  # name in the layout, module, name there
        for w in layout(config, vocab):
            block, _, rest = w.name.rpartition(".")
            home: nn.Module = self.blocks[int(block)] if block else self
            home.register_parameter(rest, nn.Parameter(torch.zeros(w.shape)))
            self._names.append((w.name, home, rest))

    def forward(self, ids: Tensor) -> Tensor:
        weights = {name: getattr(home, rest)[None] for name, home, rest in self._names}
        return logits(weights, ids[None], self.config, self.scales)[0].unflatten(0, ids.shape)


def write_weights(path: Path, flat: Array, weights: tuple[Weight, ...], about: dict[str, object]) -> None:
    """Write one model's flat vector (P,), float32, as named tensors; `about` goes into the file's metadata."""
    tensors = {_name(w): np.ascontiguousarray(flat[w.offset : w.offset + w.size].reshape(w.shape)) for w in weights}
    content = save(tensors, metadata={k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()})
    with open(path, "xb") as file:  # not save_file, whose errors do not say that a disk is full
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def load_model(run_id: str, store: Store | str | os.PathLike[str] = "runs") -> GPT:
    """The model of a finished run, whichever pack it was trained in, in evaluation mode on the CPU.

    Raises
    ------
    RequestError
        If the run is not in the store, or its weights were not kept or are not whole.
    """
    from safetensors.torch import load_file

    store = store if isinstance(store, Store) else Store(store)
    result = store.result(run_id)
    if result is None:
        raise RequestError(f"{run_id}: no such run in {store.root}")
    recipe = result.recipe
    path, state = store.run(run_id) / "weights.safetensors", store.segment(result.key)
    model = GPT(recipe.model, recipe.parametrization, recipe.vocab)
    try:
        if path.exists():
            tensors = load_file(path)
        elif (state / "state.npy").exists():
            flat = torch.from_numpy(np.array(read_state(state / "state.npy")[0]))
            weights = layout(recipe.model, recipe.vocab)
            tensors = {_name(w): flat[w.offset : w.offset + w.size].view(w.shape) for w in weights}
        else:
            raise RequestError(f"{run_id}: its weights were not kept (train.keep_weights), or it diverged")
        model.load_state_dict(tensors)
    except RequestError:
        raise
    except Exception as error:  # a file that somebody else may have written: whatever is wrong with it
        line = str(error).splitlines()[0]
        raise RequestError(f"{path}: not the weights of this run ({line}); delete the folder and run again") from None
    return model.eval()


def _name(w: Weight) -> str:
    return f"blocks.{w.name}" if w.name[0].isdigit() else w.name
