"""Recipes and runs, and the ids that name them by content.

A recipe is all that shapes training except the schedule and its length. A run is a recipe, a peak rate, phases and a
last token. The state of training at token `end` is named by its *lineage* (the recipe, the peak rate and the phases,
the last one without its end where it is open) and by `end`: all runs that share a beginning share those names, however
the beginning was cut when it was trained.

Ids leave out every field that stands at its dataclass default. Fields of the first release have none, so a field that
is added later, with a default that changes nothing, keeps old ids.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from proxytrain.config.schedule import Phase, phases
from proxytrain.config.schema import Config, Model, Muon, Optimizer, Parametrization, SGDSaI
from proxytrain.errors import RequestError
from proxytrain.model import accounting

NUMERICS_VERSION = 1  # raised when the meaning of training changes


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that shapes training except the LR schedule and its length."""

    model: Model
    parametrization: Parametrization
    optimizer: Optimizer | Muon | SGDSaI
    batch_tokens: int
    corpus: str  # content hash of tokens, validation set and tokenizer
    vocab: int
    init_seed: int
    data_seed: int
    precision: str

    @cached_property
    def id(self) -> str:
        return digest(["recipe", NUMERICS_VERSION, self])

    @cached_property
    def shape(self) -> str:
        """What the members of one pack have in common; seeds, decay and clip are theirs alone."""
        optimizer = dataclasses.replace(self.optimizer, weight_decay=0.0, clip=None)
        return digest([dataclasses.replace(self, init_seed=0, data_seed=0, optimizer=optimizer)])


@dataclass(frozen=True)
class Run:
    """One row of the results."""

    recipe: Recipe
    lr: float
    phases: tuple[Phase, ...]
    schedule: str  # its name, for people and for the fit

    @property
    def tokens(self) -> int:
        return self.phases[-1].end

    @cached_property
    def id(self) -> str:
        return digest(["run", lineage(self.recipe, self.lr, self.phases), self.tokens])


def run_of(config: Config, corpus: str, vocab: int) -> Run:
    """The run that a configuration describes, on a prepared corpus.

    Raises
    ------
    RequestError
        If the run is shorter than an update, or the schedule does not fit into it.
    """
    kind = config.parametrization  # keys without an effect must not tell runs apart
    if kind.name == "sp":
        kind = dataclasses.replace(kind, base_width=1)
    if kind.name != "completep":
        kind = dataclasses.replace(kind, base_depth=2)
    if config.model.tied:
        kind = dataclasses.replace(kind, readout_std=1.0)
    recipe = Recipe(
        model=config.model,
        parametrization=kind,
        optimizer=config.optimizer,
        batch_tokens=config.batch_tokens,
        corpus=corpus,
        vocab=vocab,
        init_seed=config.init_seed,
        data_seed=config.init_seed if config.data_seed is None else config.data_seed,
        precision=config.train.precision,
    )
    tokens = length(config, vocab)
    plan = phases(config.schedule, lr=config.lr, warmup=config.warmup, tokens=tokens, batch_tokens=config.batch_tokens)
    return Run(recipe, config.lr, plan, config.schedule.name)


def length(config: Config, vocab: int) -> int:
    """Tokens of the run, a whole number of updates."""
    asked: float
    if config.tokens is not None:
        asked, key = config.tokens, f"tokens={config.tokens}"
    elif config.flops is not None:
        asked, key = config.flops / accounting.flops_per_token(config.model, vocab), f"flops={config.flops:g}"
    else:
        ratio = 20.0 if config.tokens_per_param is None else config.tokens_per_param
        asked = ratio * accounting.non_embedding(accounting.params(config.model, vocab))
        key = f"tokens_per_param={ratio:g}"
    tokens = round(asked / config.batch_tokens) * config.batch_tokens
    if asked < config.batch_tokens:
        raise RequestError(f"{key}: a run of {asked:.0f} tokens is shorter than one update of {config.batch_tokens}")
    return tokens


def lineage(recipe: Recipe, lr: float, plan: tuple[Phase, ...]) -> str:
    """Name of the line of states that these phases pass through; positions on it are tokens."""
    last = plan[-1]
    kept = [*plan[:-1], dataclasses.replace(last, end=-1) if last.open else last]
    return digest(["lineage", recipe.id, lr, kept])


def canonical(value: Any) -> Any:
    """Value as plain JSON types: dataclasses as mappings without the fields that stand at their default."""
    if dataclasses.is_dataclass(value):
        kept = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: canonical(v) for f, v in kept if f.default is dataclasses.MISSING or v != f.default}
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    if isinstance(value, dict):
        return {k: canonical(v) for k, v in value.items()}
    return value


def digest(value: Any) -> str:
    """First 64 bits of the SHA-256 of the canonical JSON, as 16 hex digits."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
