"""A run that goes on from a trained one under another ending: from a state of its trunk, which is not trained again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from proxytrain.config.compose import compose
from proxytrain.config.overrides import leaves
from proxytrain.config.schema import Config
from proxytrain.config.section import build
from proxytrain.corpus.corpus import load
from proxytrain.errors import RequestError
from proxytrain.monitor.console import Console
from proxytrain.plan.grid import LENGTH_KEYS
from proxytrain.plan.runs import Run
from proxytrain.plan.share import lineages
from proxytrain.store.documents import Key
from proxytrain.store.store import Store
from proxytrain.sweep.request import Request, request


def branch(run_id: str, overrides: list[str], config_dir: str | None, console: Console) -> Request:
    """The request for a run with all of a trained run's settings but its schedule or its length.

    Parameters
    ----------
    run_id : of a finished run in the store
    overrides : `schedule` and its keys, a length, and what does not belong to a run (`store`, `launch`, `train.device`)

    Raises
    ------
    RequestError
        If there is no such run, more than its ending is changed, or nothing of its trunk can be gone on from.
    """
    store = Store(build(Config, compose(overrides, config_dir)).store)
    old = store.result(run_id)
    if old is None:
        raise RequestError(
            f"{run_id}: no such run in {store.root}; `proxytrain status sweep.name=NAME` lists those of a sweep"
        )
    own = _settings(store.run(run_id) / "config.yaml", overrides)
    corpus = load(store.corpora(), old.recipe.corpus)
    precision = f"train.precision={old.recipe.precision}"
    asked = request([*own, precision, *overrides], config_dir, console, corpus)
    run = asked.runs[0]
    if run.recipe.id != old.recipe_id:
        raise RequestError(f"{run_id}: trained by a version of proxytrain whose runs cannot be gone on from")
    if not store.has_result(run.id):
        _check_trunk(run, run_id, list(_way(store, old.key)), store)
    return asked


def _settings(path: Path, overrides: list[str]) -> list[str]:
    """A run's own configuration as overrides, groups first, without what is given anew."""
    kept = yaml.safe_load(path.read_text())
    given = [o.partition("=")[0].lstrip("+") for o in overrides]
    for key in given:
        if key.split(".")[0] in kept and key.split(".")[0] not in ("schedule", *LENGTH_KEYS):
            raise RequestError(f"{key}: a branch keeps all of its run's settings but schedule and length")
    drop = {"tokens"} if set(given) & set(LENGTH_KEYS) else set()
    own = []
    for key, value in leaves(kept):
        group, _, name = key.partition(".")
        if key not in drop and not (group == "schedule" and "schedule" in given):
            own.append(f"{group if name == 'name' else key}={'null' if value is None else value}")
    return sorted(own, key=lambda o: "." in o.partition("=")[0])


def _way(store: Store, key: Key | None) -> Iterator[Key]:
    """The segments that a run passed through, the last first."""
    while key:
        yield key
        meta = store.meta(key)
        key = meta.parent if meta else None


def _check_trunk(run: Run, run_id: str, way: list[Key], store: Store) -> None:
    """Something of the trained run, beyond its warm-up, must lie on the new one's way, with its state."""
    first = run.phases[0].end if run.phases[0].kind == "warmup" else 0
    ours = lineages([run])
    shared = [key for key in way if key[0] in ours and first < key[1] < run.tokens]
    if not shared:
        raise RequestError(
            f"schedule={run.schedule}, tokens={run.tokens}: shares no kept state with {run_id} beyond warm-up; "
            "`proxytrain train` trains it by itself"
        )
    if not any(store.has_state(key) for key in shared):
        raise RequestError(
            f"{run_id}: the states of its trunk are gone (`proxytrain gc`, or they were never copied here); "
            "`proxytrain train` trains the new run from its start"
        )
