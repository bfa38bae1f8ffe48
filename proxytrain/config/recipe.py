"""Recipes, and the ids that name them by content.

A recipe is all that shapes training except the schedule and its length. Ids leave out every field that stands at its
default. Fields of the first release have none, so a field that is added later, with a default that changes nothing,
keeps old ids.
"""

from __future__ import annotations

import functools
import hashlib
import json
from functools import cached_property
from typing import Any

import msgspec
from msgspec.structs import fields, replace

from proxytrain.config.schema import AnyOptimizer, Model, Parametrization

NUMERICS_VERSION = 1  # raised when the meaning of training changes


class Recipe(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """All that shapes training except the LR schedule and its length."""

    model: Model
    parametrization: Parametrization
    optimizer: AnyOptimizer
    batch_tokens: int
    corpus: str  # content hash of tokens, validation set and tokenizer
    vocab: int
    init_seed: int
    data_seed: int
    precision: str

    @cached_property
    def id(self) -> str:
        """Return the recipe's id."""
        return digest(["recipe", NUMERICS_VERSION, self])

    @cached_property
    def shape(self) -> str:
        """Return what the members of one pack have in common; seeds, decay and clip are theirs alone."""
        optimizer = replace(self.optimizer, weight_decay=0.0, clip=None)
        return digest([replace(self, init_seed=0, data_seed=0, optimizer=optimizer)])


def canonical(value: Any) -> Any:
    """Return a value as plain JSON types: classes as mappings without the fields that stand at their default."""
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        tree = {} if config.tag is None else {config.tag_field: config.tag}
        for name, default in _defaults(type(value)):
            if (field := getattr(value, name)) != default:
                tree[name] = canonical(field)
        return tree
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    if isinstance(value, dict):
        return {k: canonical(v) for k, v in value.items()}
    return value


@functools.cache
def _defaults(cls: type[msgspec.Struct]) -> list[tuple[str, Any]]:
    """Return the names of a class's fields with their defaults, or with a mark that no value equals."""
    return [(f.name, f.default) for f in fields(cls)]


def digest(value: Any) -> str:
    """Return the first 64 bits of the SHA-256 of the canonical JSON, as 16 hex digits."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
