"""What the columns of a table that no law reads are: settings of the runs, names, measurements, or what follows from
size and length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import RequestError
from proxytrain.fit.tables.runs import SAME, Runs, cell_index, numbered, words_of

RECURS = 0.5  # share of the rows of a setting whose value occurs at several sizes or lengths
# Words in a column's name. Those of the first never set a run apart. Numbers under the second are measured, unless a
# word of the third makes them a setting (z_loss, loss_scale).
KEPT_BY_LOGGERS = frozenset(
    {"host", "hostname", "node", "gpu", "machine", "server", "user", "username", "author", "commit", "sha", "slurm"}
    | {"date", "time", "timestamp", "created", "updated", "runtime", "duration", "job", "jobid"}
)
MEASURED = frozenset(
    {"loss", "acc", "accuracy", "ppl", "perplexity", "bpb", "score", "error", "stderr", "sem", "entropy", "gradnorm"}
    | {"mfu", "throughput", "memory", "mem", "util", "tflops", "seconds", "hours"}
)
SET_BY_USERS = frozenset({"z", "aux", "weight", "coef", "coefficient", "scale", "scaling", "type", "fn", "clip"})
# Columns that say which part of an evaluation a row holds: the losses of one run, and no setting of it.
PARTS = frozenset(
    {"split", "subset", "dataset", "domain", "corpus", "metric", "benchmark", "task", "phase", "partition"}
    | {"eval", "evaluation", "eval_set", "eval_split"}
)
TRAINING, VALIDATION = {"train", "training"}, {"val", "valid", "validation", "test", "eval", "dev", "heldout"}


@dataclass(frozen=True)
class Roles:
    """Names of the columns by what they are."""

    settings: tuple[str, ...]  # the runs of one size, length and seed differ in them
    with_seed: tuple[str, ...]  # differ between runs of one size and length, but only together with the seed
    unique: tuple[str, ...]  # a value of its own in each row, or nearly so
    follows: tuple[str, ...]  # the same in all runs of one size and length (and settings)
    others: tuple[str, ...]  # constant, measured, or bookkeeping


def roles(runs: Runs, unknown: Mapping[str, Array]) -> Roles:
    """Return what the columns are that no law reads.

    Parameters
    ----------
    runs : those of the table, without settings and, perhaps, without losses
    unknown : column -> (n,) values as texts
    """
    cell, seed = cell_index(runs), numbered(runs.seeds) if runs.seeds else None
    settings: list[str] = []
    found: dict[str, list[str]] = {"with_seed": [], "unique": [], "follows": [], "others": []}
    for name in sorted(unknown, key=lambda c: len(np.unique(unknown[c]))):
        value = np.unique(unknown[name], return_inverse=True)[1].reshape(-1)
        own = numbered([cell, *(unknown[c] for c in settings)])
        if value.max() == 0 or _is_kept_by_loggers(name) or _is_measured(name, unknown[name]):
            kind = "others"
        elif value.max() + 1 == len(runs):
            kind = "unique"
        elif not _differs_within(own, value):
            kind = "follows"
        elif _recurring(value, cell) < RECURS:
            kind = "unique"
        elif seed is None or not _one_to_one(own, value, seed):
            settings.append(name)
            continue
        else:
            kind = "with_seed"
        found[kind].append(name)
    ordered = {kind: tuple(c for c in unknown if c in names) for kind, names in found.items()}
    return Roles(settings=tuple(c for c in unknown if c in settings), **ordered)


def refuse_parts(runs: Runs, unknown: Mapping[str, Array]) -> None:
    """Refuse a table in long form, with a row of each run for every split, domain or metric of its evaluation.

    Raises
    ------
    RequestError
        Names the column, its values and how one is chosen.
    """
    unit = numbered([cell_index(runs, SAME), *runs.seeds])
    for name, values in unknown.items():
        known = {v.lower() for v in np.unique(values)}
        sides = bool(known & TRAINING and known & VALIDATION)
        if not sides and (name.lower() not in PARTS or _as_numbers(values) is not None):
            continue
        if len(known) < len(values) and _differs_within(unit, np.unique(values, return_inverse=True)[1].reshape(-1)):
            kinds, counts = np.unique(values, return_counts=True)
            listed = ", ".join(kinds[:6]) + (", ..." if len(kinds) > 6 else "")
            several = "" if sides or name.lower() == "metric" else f", or fit all with fit.columns={{group: {name}}}"
            wanted = [k for k in kinds if k.lower() in VALIDATION] or [k for k in kinds if "loss" in k.lower()]
            best = wanted[0] if wanted else kinds[counts.argmax()]
            raise RequestError(
                f"{runs.source}: runs of one size, length and seed have {listed} in column {name}. "
                f"Choose one, as fit.where={{{name}: {best}}}{several}."
            )


def _is_kept_by_loggers(name: str) -> bool:
    return bool(words_of(name) & KEPT_BY_LOGGERS) or name.startswith("_")


def _is_measured(name: str, values: Array) -> bool:
    words = words_of(name)
    named = words & MEASURED or {"grad", "norm"} <= words or {"bits", "byte"} <= words
    return bool(named) and not words & SET_BY_USERS and _as_numbers(values) is not None


def _as_numbers(values: Array) -> Array | None:
    try:
        return values.astype(float)
    except ValueError:
        return None


def _differs_within(group: Array, value: Array) -> bool:
    return len(np.unique(np.stack([group, value]), axis=1).T) > len(np.unique(group))


def _recurring(value: Array, cell: Array) -> float:
    """Share of the rows whose value occurs in several cells."""
    pairs = np.unique(np.stack([value, cell]), axis=1)
    cells = np.bincount(pairs[0])
    return float((cells[value] > 1).mean())


def _one_to_one(group: Array, value: Array, seed: Array) -> bool:
    """Whether, in every group, each seed has one value and each value one seed: their effects cannot be told apart."""
    pairs = np.unique(np.stack([group, value, seed]), axis=1)
    return all(np.unique(keys, axis=1).shape[1] == pairs.shape[1] for keys in (pairs[[0, 1]], pairs[[0, 2]]))
