"""Reads and checks a table of finished runs: the door of this package. What passes needs no check further in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from proxytrain.errors import RequestError

SCALE = ("params", "tokens", "flops")  # two of these, or one for a law in one variable
NUMERIC = (*SCALE, "loss", "loss_se", "lr", "batch_tokens", "weight", "unique_tokens")
SEEDS = ("init_seed", "data_seed", "trunk")
LABELS = ("schedule", "init_seed", "data_seed", "trunk", "group")
# (lowest, highest, what is meant): a value outside is a unit that cannot be, e.g. tokens counted in billions.
RANGES = {
    "params": (1e3, 1e15, "parameters, at least 1000"),
    "tokens": (1e3, 1e17, "tokens, at least 1000"),
    "flops": (1e6, 1e35, "FLOPs, at least 1e6"),
    "loss": (0.0, 20.0, "nats a token, above 0 and below 20"),
    "loss_se": (-1.0, 1.0, "a standard error of the loss, 0 or more and below 1"),
    "lr": (0.0, 1e4, "above 0"),
    "batch_tokens": (0.0, 1e12, "tokens, above 0"),
    "weight": (0.0, 1e12, "above 0"),
    "unique_tokens": (1e3, 1e17, "tokens, at least 1000"),
}


@dataclass(frozen=True)
class Runs:
    """Checked runs in a canonical order, so that the order of the rows in the file cannot matter.

    `numbers` and `labels` map a column to an array of n values; `row` is the row in the source, counted from 1.
    """

    numbers: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    row: np.ndarray
    source: str
    ignored: tuple[str, ...]
    asked: Mapping[str, str] = field(default_factory=dict)  # schedule and group of what is to be predicted
    size: str = "params"  # the column that is N
    only: str | None = None  # the one of params, tokens and flops that is known; the others are then 1 where it is one

    def __len__(self) -> int:
        return len(self.row)

    def __getattr__(self, name: str) -> np.ndarray:
        if name in ("params", "tokens", "loss"):
            return self.numbers[name]
        raise AttributeError(name)

    @property
    def compute(self) -> np.ndarray:
        """Training FLOPs up to a constant, 6 N D."""
        return 6.0 * self.params * self.tokens

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """All that a law may read."""
        unique = {"unique_tokens": self.tokens}  # where the table does not say, no text is seen twice
        return {"flops": self.compute, **unique, **self.numbers, **self.labels}

    @property
    def like_target(self) -> np.ndarray:
        """Mask (n,) of the runs of the schedule and group that are asked for."""
        return np.all([np.ones(len(self), bool)] + [self.labels[c] == v for c, v in self.asked.items()], axis=0)

    def alone(self) -> Runs:
        """The same runs, as if they were all of the group that is asked for."""
        return replace(self, asked={c: v for c, v in self.asked.items() if c != "group"})

    def take(self, keep: np.ndarray) -> Runs:
        """The runs that a mask or an index selects."""
        return replace(
            self,
            numbers={k: v[keep] for k, v in self.numbers.items()},
            labels={k: v[keep] for k, v in self.labels.items()},
            row=self.row[keep],
        )

    @property
    def hash(self) -> str:
        """SHA-256 over columns and values in canonical order."""
        digest = hashlib.sha256()
        for name, values in sorted({**self.numbers, **self.labels}.items()):
            digest.update(name.encode() + b"\0")
            digest.update(
                np.ascontiguousarray(values).tobytes() if name in self.numbers else "\0".join(values).encode()
            )
        return digest.hexdigest()


def to_levels(values: np.ndarray, tolerance: float = 0.01) -> np.ndarray:
    """Make values equal that differ by less than `tolerance` (relative): each becomes the smallest of its level."""
    order = np.argsort(values, kind="stable")
    levels = np.empty_like(values)
    start = -np.inf
    for i in order:
        if not values[i] <= start * (1 + tolerance):
            start = values[i]
        levels[i] = start
    return levels


def read_runs(table: Any, columns: Mapping[str, str] | None = None) -> Runs:
    """Read a DataFrame, a mapping of arrays, or a path of CSV or Parquet.

    Parameters
    ----------
    table : pandas.DataFrame, mapping of str to array, or path
        One row a finished run. Needed: ``loss`` (nats a token) and two of ``params``, ``tokens`` and ``flops`` (read as
        6 params tokens; ignored where the others are there), or one of them for a law in that variable. Where there is
        no ``params``, the one column that begins so is N: ``params_nonembedding``, ``params_total``, or
        ``params_average``, the mean over the tokens of a run whose size changes (arXiv 2501.12486). Columns that are
        not known are ignored and listed.
    columns : mapping of str to str, optional
        Our name to the table's name, where they differ.

    Raises
    ------
    RequestError
        Names the file, column and row, the value and what is allowed.
    """
    source, raw = load(table)
    columns = dict(columns or {})
    if "seed" in raw and "init_seed" not in {*raw, *columns}:
        columns["init_seed"] = "seed"
    sizes = [c for c in raw if c.startswith("params")]
    if "params" not in {*raw, *columns} and sizes:
        if len(sizes) > 1:
            raise RequestError(
                f"{source}: has {', '.join(sizes)} and no params; say which is N: columns={{'params': '{sizes[0]}'}} "
                f"(on the command line fit.columns={{params:{sizes[0]}}})"
            )
        columns["params"] = sizes[0]
    for ours, theirs in columns.items():
        if ours not in NUMERIC + LABELS:
            raise RequestError(f"fit.columns: {ours!r} is not a column that is used; use {', '.join(NUMERIC + LABELS)}")
        if theirs not in raw:
            raise RequestError(f"{source}: no column {theirs!r} (for {ours}); it has {', '.join(raw)}")
    have = [c for c in SCALE if columns.get(c, c) in raw]
    if {"params", "tokens"} <= set(have):
        have = ["params", "tokens"]
    missing = (["loss"] if columns.get("loss", "loss") not in raw else []) + ([] if have else ["params", "tokens"])
    if missing:
        hint = "; name them with columns={...} (on the command line fit.columns={...})" if raw else ""
        raise RequestError(f"{source}: no column {', '.join(missing)}; it has {', '.join(raw) or 'none'}{hint}")
    lengths = {len(v) for v in raw.values()}
    if len(lengths) > 1:
        raise RequestError(f"{source}: columns of different length ({', '.join(map(str, sorted(lengths)))} rows)")
    if lengths == {0}:
        raise RequestError(f"{source}: has no rows")
    read = [c for c in NUMERIC if columns.get(c, c) in raw and (c in have or c not in SCALE)]
    numbers = {c: _numbers(raw[columns.get(c, c)], c, source) for c in read}
    numbers |= dict(zip(("params", "tokens"), size_and_length(numbers)))
    numbers.pop("flops", None)
    labels = {c: _labels(raw[columns.get(c, c)]) for c in LABELS if columns.get(c, c) in raw}
    used = {columns.get(c, c) for c in (*read, *LABELS)}
    ignored = tuple(c for c in raw if c not in used)
    if ignored and not set(SEEDS) & set(labels):  # rows that differ in a column we do not know are no repeats
        labels["other"] = np.array(["\0".join(map(str, row)) for row in zip(*(raw[c] for c in ignored))], dtype=str)
    only = have[0] if len(have) == 1 else None
    size = columns.get("params", "params")
    runs = Runs(numbers, labels, np.arange(1, lengths.pop() + 1), source, ignored, size=size, only=only)
    keys = [*(v for v in labels.values()), *(v for c, v in numbers.items() if c not in ("params", "tokens", "loss"))]
    return runs.take(np.lexsort((*keys, runs.loss, runs.tokens, runs.params)))


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


def load(table: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(table, (str, os.PathLike)):
        return str(table), _load_file(Path(table))
    if isinstance(table, Mapping):
        return "table", {str(k): np.atleast_1d(np.asarray(v)) for k, v in table.items()}
    if hasattr(table, "columns") and hasattr(table, "to_numpy"):
        return "table", {str(c): table[c].to_numpy() for c in table.columns}
    raise RequestError(f"table: must be a DataFrame, a mapping of arrays or a path, not {type(table).__name__}")


def _load_file(path: Path) -> dict[str, Any]:
    import pandas

    if not path.is_file():
        raise RequestError(f"{path}: no such file")
    if path.suffix not in (".csv", ".parquet", ".gz", ".zst"):
        raise RequestError(f"{path}: must be .csv or .parquet")
    try:
        frame = pandas.read_parquet(path) if path.suffix == ".parquet" else pandas.read_csv(path)
    except pandas.errors.EmptyDataError:
        raise RequestError(f"{path}: is empty") from None
    except (OSError, ValueError, UnicodeDecodeError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        raise RequestError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    names = [str(c) for c in frame.columns]
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise RequestError(f"{path}: its first line is {names[0]!r}: columns must be separated by commas")
    return {name: frame[c].to_numpy() for name, c in zip(names, frame.columns)}


def _numbers(values: Any, column: str, source: str) -> np.ndarray:
    out = np.empty(len(values))
    low, high, meaning = RANGES[column]
    for i, value in enumerate(values):
        try:
            out[i] = float(value)
        except (TypeError, ValueError):
            raise RequestError(f"{source}: {column} in row {i + 1} is {str(value)!r}, not a number") from None
    good = np.isfinite(out) & (out > low if low <= 0 else out >= low) & (out < high)
    if column == "loss_se":
        good &= out >= 0
    if not good.all():
        i = int(np.argmin(good))
        hint = "; leave out runs that diverged" if column == "loss" and not out[i] < high else ""
        raise RequestError(f"{source}: {column} in row {i + 1} is {out[i]:g}; must be {meaning}{hint}")
    return out


def _labels(values: Any) -> np.ndarray:
    def text(value: Any) -> str:
        whole = isinstance(value, (float, np.floating)) and float(value).is_integer()
        return str(int(value)) if whole else str(value)

    return np.array([text(v) for v in values], dtype=str)
