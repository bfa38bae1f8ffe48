"""Runs, and the names of the states that they pass through.

A run is a recipe, a peak rate, phases and a last token. The state of training at token `end` is named by its *lineage*
(the recipe, the peak rate and the phases, the last one without its end where it is open) and by `end`: all runs that
share a beginning share those names, however the beginning was cut when it was trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from msgspec.structs import replace

from proxytrain.config.recipe import Recipe, digest
from proxytrain.config.schedule import Phase, phases
from proxytrain.config.schema import Config
from proxytrain.errors import RequestError
from proxytrain.model import accounting
from proxytrain.store.documents import RunRecord, RunSettings


@dataclass(frozen=True)
class Run:
    """One row of the results."""

    recipe: Recipe
    settings: RunSettings
    phases: tuple[Phase, ...]

    @property
    def lr(self) -> float:
        """Return the peak base learning rate."""
        return self.settings.lr

    @property
    def schedule(self) -> str:
        """Return the name of its schedule, for people and for the fit."""
        return self.settings.schedule.name

    @property
    def tokens(self) -> int:
        """Return its length."""
        return self.phases[-1].end

    @cached_property
    def id(self) -> str:
        """Return the name of its result."""
        return digest(["run", lineage(self.recipe, self.lr, self.phases), self.tokens])

    @cached_property
    def record(self) -> RunRecord:
        """Return what a plan keeps of it."""
        model, vocab = self.recipe.model, self.recipe.vocab
        flops = self.tokens * accounting.flops_per_token(model, vocab)
        return RunRecord(id=self.id, params=accounting.params(model, vocab), flops=flops, config=self.settings)


def run_of(config: Config, corpus: str, vocab: int) -> Run:
    """The run that a configuration describes, on a prepared corpus.

    Raises
    ------
    RequestError
        If the run is shorter than an update, or the schedule does not fit into it.
    """
    kind = config.parametrization  # keys without an effect must not tell runs apart
    if kind.name == "sp":
        kind = replace(kind, base_width=1)
    if kind.name != "completep":
        kind = replace(kind, base_depth=2)
    if config.model.tied:
        kind = replace(kind, readout_std=1.0)
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
    settings = RunSettings(
        model=config.model,
        parametrization=config.parametrization,
        optimizer=config.optimizer,
        schedule=config.schedule,
        tokens=tokens,
        lr=config.lr,
        warmup=config.warmup,
        batch_tokens=config.batch_tokens,
        init_seed=recipe.init_seed,
        data_seed=recipe.data_seed,
    )
    return Run(recipe, settings, plan)


def length(config: Config, vocab: int) -> int:
    """Tokens of the run, a whole number of updates."""
    asked: float
    if config.tokens is not None:
        asked, key = config.tokens, f"tokens={config.tokens}"
    elif config.flops is not None:
        asked, key = config.flops / accounting.flops_per_token(config.model, vocab), f"flops={config.flops:g}"
    else:
        ratio = 20.0 if config.tokens_per_param is None else config.tokens_per_param
        asked = ratio * accounting.params(config.model, vocab).non_embedding
        key = f"tokens_per_param={ratio:g}"
    tokens = round(asked / config.batch_tokens) * config.batch_tokens
    if asked < config.batch_tokens:
        raise RequestError(f"{key}: a run of {asked:.0f} tokens is shorter than one update of {config.batch_tokens}")
    return tokens


def lineage(recipe: Recipe, lr: float, plan: tuple[Phase, ...]) -> str:
    """Name of the line of states that these phases pass through; positions on it are tokens."""
    last = plan[-1]
    kept = [*plan[:-1], replace(last, end=-1) if last.open else last]
    return digest(["lineage", recipe.id, lr, kept])
