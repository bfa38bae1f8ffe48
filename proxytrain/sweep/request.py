"""What was asked: a configuration becomes the runs of a sweep and its target, on a prepared corpus.

All that can be known to be wrong before anything is planned or trained is refused here, in one line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from proxytrain.config.compose import compose, group_loader
from proxytrain.config.schema import Config
from proxytrain.config.section import build
from proxytrain.corpus import Corpus, Stream, prepare
from proxytrain.errors import RequestError
from proxytrain.fit.losses.laws import get_law
from proxytrain.monitor.console import Console
from proxytrain.plan.freeze import request_of
from proxytrain.plan.grid import expand, point
from proxytrain.plan.runs import Run, run_of
from proxytrain.store.documents import RunRecord
from proxytrain.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked: the runs of a sweep and its target, on a prepared corpus."""

    config: Config
    store: Store
    corpus: Corpus
    runs: list[Run]
    targets: list[Run]  # the run to predict; with verify.seeds=n under n seeds
    command: list[str]  # arguments of the verb that asked

    @property
    def target(self) -> Run | None:
        return self.targets[0] if self.targets else None

    @property
    def target_record(self) -> RunRecord | None:
        return self.target.record if self.target else None

    @property
    def records(self) -> list[RunRecord]:
        return [run.record for run in self.runs]

    @property
    def digest(self) -> str:
        """Return the digest by which a plan knows that it is of this request."""
        return request_of(self.runs, self.target)

    @property
    def name(self) -> str:
        return self.config.sweep.name

    @property
    def ids(self) -> list[str]:
        return [run.id for run in self.runs]

    @property
    def folder(self) -> Path:
        return self.store.sweep(self.name)


def request(overrides: list[str], config_dir: str | None, console: Console, corpus: Corpus | None = None) -> Request:
    """Compose and check a configuration, prepare its corpus (unless one is given), and expand its grids.

    Raises
    ------
    RequestError
        For anything that could not be trained: keys, values, text, lengths.
    """
    tree = compose(overrides, config_dir)
    config: Config = build(Config, tree)  # its points are checked, not the base that they vary
    store = Store(config.store)
    store.sweep(config.sweep.name)
    group = group_loader(overrides, config_dir)
    _check_fit(config)
    configs = expand(tree, config.sweep.grids, group)
    target_configs = []
    if config.sweep.target:
        goal = point(tree, config.sweep.target, group, "sweep.target")
        target_configs = [_reseeded(goal, i) for i in range(config.verify.seeds)]
    store.check_writable()
    with console.at_work("corpus") as tell:
        corpus = corpus or prepare(config.data, store.corpora(), lambda *done: tell(*_of_text(*done)), console.say)
    manifest = corpus.manifest
    made = (run_of(c, manifest.content_hash, manifest.vocab_size) for c in configs)
    runs = list({run.id: run for run in made}.values())
    known = {run.schedule for run in runs}
    if config.fit.schedule is not None and config.fit.schedule not in known:
        raise RequestError(f"fit.schedule={config.fit.schedule}: no run has it; there are {', '.join(sorted(known))}")
    targets = [run_of(c, manifest.content_hash, manifest.vocab_size) for c in target_configs]
    for run in [*runs, *targets]:
        _check_text(run, corpus)
    _check_repeats([*runs, *targets], corpus, config.data.allow_repeat, console)
    return Request(
        config=config,
        store=store,
        corpus=corpus,
        runs=runs,
        targets=targets,
        command=[*(["--config-dir", config_dir] if config_dir else []), *overrides],
    )


def _reseeded(config: Config, by: int) -> Config:
    data_seed = None if config.data_seed is None else config.data_seed + by
    return replace(config, init_seed=config.init_seed + by, data_seed=data_seed)


def _of_text(done: int, total: int | None, what: str) -> tuple[float | None, str]:
    """How far the corpus is, as the console shows it."""
    return done / total if total else None, f"{what}, {done / 1e6:.0f} MB" if done else what


def _check_fit(config: Config) -> None:
    """A law that does not exist must not be found out after hours of training."""
    name = config.fit.law
    if name in ("optimum", "critical_batch"):
        raise RequestError(
            f"fit.law={name}: is what `proxytrain fit` fits to trained runs; a sweep predicts by a law of loss"
        )
    if name != "auto":
        get_law(name)


def _check_text(run: Run, corpus: Corpus) -> None:
    recipe, m = run.recipe, corpus.manifest
    if m.train_tokens <= recipe.batch_tokens:
        raise RequestError(
            f"batch_tokens={recipe.batch_tokens}: the corpus has only {m.train_tokens} training tokens; "
            "give more text or a smaller batch"
        )
    if m.val_tokens <= recipe.model.context:
        raise RequestError(
            f"model.context={recipe.model.context}: the validation set has only {m.val_tokens} tokens; "
            "give more text, a larger data.val_fraction or a shorter context"
        )


def _check_repeats(runs: list[Run], corpus: Corpus, allowed: bool, console: Console) -> None:
    """A run that would see text twice is said, or refused."""
    longest = max(runs, key=lambda r: r.tokens)
    epochs = Stream(corpus.train, longest.recipe.model.context, 0).epochs(longest.tokens)
    if epochs <= 1:
        return
    text = (
        f"{longest.tokens} tokens read the corpus of {corpus.manifest.train_tokens} training tokens {epochs:.2f} times"
    )
    if not allowed:
        raise RequestError(f"data.allow_repeat=false: {text}; give more text, shorter runs, or data.allow_repeat=true")
    console.say(f"note: {text}; losses of repeated text are not those of fresh text")
