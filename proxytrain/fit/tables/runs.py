"""Checked runs as columns, and how they group: sizes and lengths that are equal, cells, units. Read by `table.py`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from proxytrain.arrays import Array

SCALE = ("params", "tokens", "flops")  # two of these, or one for a law in one variable
NUMERIC = (*SCALE, "loss", "loss_se", "lr", "batch_tokens", "weight", "unique_tokens")
SEEDS = ("init_seed", "data_seed", "trunk")
SAME = 1e-6  # relative difference of sizes that are one number, written differently
LABELS = ("schedule", "init_seed", "data_seed", "trunk", "group")


@dataclass(frozen=True)
class Runs:
    """Checked runs in a canonical order, so that the order of the rows in the file cannot matter.

    `numbers`, `labels` and `settings` map a column to an array of n values; `row` is the row in the source, counted
    from 1. `settings` are columns of the table's own that tell runs of one size, length and seed apart.
    """

    numbers: dict[str, Array]
    labels: dict[str, Array]
    row: Array
    source: str
    ignored: tuple[str, ...] = ()
    asked: Mapping[str, str] = field(default_factory=dict)  # schedule and group of what is to be predicted
    size: str = "params"  # the column that is N
    only: str | None = None  # the one of params, tokens and flops that is known; the others are then 1 where it is one
    settings: dict[str, Array] = field(default_factory=dict)
    reading: tuple[str, ...] = ()  # lines on what each column was read as
    notes: tuple[str, ...] = ()  # warnings from reading

    def __len__(self) -> int:
        return len(self.row)

    def __getattr__(self, name: str) -> Array:
        if name in ("params", "tokens", "loss"):
            return self.numbers[name]
        raise AttributeError(name)

    @property
    def compute(self) -> Array:
        """Training FLOPs up to a constant, 6 N D."""
        return 6.0 * self.params * self.tokens

    @property
    def columns(self) -> dict[str, Array]:
        """All that a law may read."""
        unique = {"unique_tokens": self.tokens}  # where the table does not say, no text is seen twice
        return {"flops": self.compute, **unique, **self.numbers, **self.labels}

    @property
    def like_target(self) -> Array:
        """Mask (n,) of the runs of the schedule and group that are asked for."""
        return np.all([np.ones(len(self), bool)] + [self.labels[c] == v for c, v in self.asked.items()], axis=0)

    @property
    def seeds(self) -> list[Array]:
        """The columns (n,) that name a seed."""
        return [self.labels[c] for c in SEEDS if c in self.labels]

    def alone(self) -> Runs:
        """The same runs, as if they were all of the group that is asked for."""
        return replace(self, asked={c: v for c, v in self.asked.items() if c != "group"})

    def take(self, keep: Array) -> Runs:
        """The runs that a mask or an index selects."""
        return replace(
            self,
            numbers={k: v[keep] for k, v in self.numbers.items()},
            labels={k: v[keep] for k, v in self.labels.items()},
            settings={k: v[keep] for k, v in self.settings.items()},
            row=self.row[keep],
        )

    @property
    def hash(self) -> str:
        """SHA-256 over columns and values in canonical order."""
        digest = hashlib.sha256()
        for name, values in sorted({**self.numbers, **self.labels, **self.settings}.items()):
            digest.update(name.encode() + b"\0")
            digest.update(
                np.ascontiguousarray(values).tobytes() if name in self.numbers else "\0".join(values).encode()
            )
        return digest.hexdigest()


def to_levels(values: Array, tolerance: float = 0.01) -> Array:
    """Make values equal that differ by less than `tolerance` (relative): each becomes the smallest of its level."""
    order = np.argsort(values, kind="stable")
    levels = np.empty_like(values)
    start = -np.inf
    for i in order:
        if not values[i] <= start * (1 + tolerance):
            start = values[i]
        levels[i] = start
    return levels


def cell_index(runs: Runs, same: float | None = None) -> Array:
    """Return the number (n,) of the cell of each run: all that is meant to matter for its loss, the seeds left out.

    Sizes and lengths that differ by less than `same` (relative) are equal.
    """
    if same is None:
        same = 0.01 if runs.seeds else SAME  # without seeds two runs are a repeat only where nothing tells them apart
    keys = [to_levels(runs.params, same).astype(str), to_levels(runs.tokens, same).astype(str)]
    keys += [runs.numbers[c].astype(str) for c in ("lr", "batch_tokens", "unique_tokens") if c in runs.numbers]
    keys += [runs.labels[c] for c in ("schedule", "group") if c in runs.labels]
    return numbered([*keys, *runs.settings.values()])


def numbered(keys: Sequence[Array]) -> Array:
    """Return the number (n,) of each combination of the keys, each (n,)."""
    joined = np.array(["\0".join(map(str, parts)) for parts in zip(*keys)])
    return np.unique(joined, return_inverse=True)[1].reshape(-1)


def words_of(name: str) -> set[str]:
    """Return the words in a column's name, in lower case: `trainLoss/c4` has train, loss and c4."""
    return set(re.split(r"[^a-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name).lower()))


def size_and_length(known: Mapping[str, Any]) -> tuple[Any, Any]:
    """Params and tokens from those of params, tokens and flops that are known; one that nothing tells is 1."""
    if "params" in known and "tokens" in known:
        return known["params"], known["tokens"]
    if "params" in known:
        n = known["params"]
        return n, known["flops"] / 6.0 / n if "flops" in known else np.ones_like(n)
    if "tokens" in known:
        d = known["tokens"]
        return known["flops"] / 6.0 / d if "flops" in known else np.ones_like(d), d
    return known["flops"] / 6.0, np.ones_like(known["flops"])
