"""Reads and checks a table of finished runs: the door of this package. What passes needs no check further in.

What each column was read as is kept in `Runs.reading`, so that a wrong reading is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError, did_you_mean
from proxytrain.fit.tables.checkpoints import only_finished
from proxytrain.fit.tables.load import load
from proxytrain.fit.tables.roles import Roles, refuse_parts, roles
from proxytrain.fit.tables.runs import LABELS, NUMERIC, SCALE, SEEDS, Runs, size_and_length
from proxytrain.fit.tables.units import RANGES, check_loss, check_scale
from proxytrain.types import parse_number

SEED_NAMES = ("seed", "random_seed", "rng_seed", "replicate", "rep")  # read as init_seed where there is none
STATES = ("state", "status", "run_state")
FINISHED = {"finished", "done", "completed", "complete", "success", "succeeded"}
UNFINISHED = {"crashed", "failed", "killed", "running", "pending", "preempted", "preempting", "diverged", "aborted"}
SHOWN_COLUMNS = 12  # names of columns that a line lists


@dataclass(frozen=True)
class _Table:
    """Rows of the source that count, and which of its columns is which of ours."""

    source: str
    raw: dict[str, Any]
    row: Array
    names: dict[str, str]  # our name -> the table's

    def take(self, keep: Array) -> _Table:
        return replace(self, raw={c: v[keep] for c, v in self.raw.items()}, row=self.row[keep])


def read_runs(
    table: Any,
    columns: Mapping[str, str] | None = None,
    *,
    where: Mapping[str, Any] | None = None,
    rows: str | None = None,
    drop: bool = False,
) -> Runs:
    """Read a DataFrame, a mapping of arrays, or a path of CSV or Parquet.

    Parameters
    ----------
    table : pandas.DataFrame, mapping of str to array, or path
        One row per finished run. Needed: ``loss`` (nats per token) and two of ``params``, ``tokens`` and ``flops``
        (read as 6 params tokens; ignored where the others are there), or one of them for a law in that variable. Where
        there is no ``params``, the one column that begins so is N: ``params_nonembedding``, ``params_total``, or
        ``params_average``, the mean over the tokens of a run whose size changes (arXiv 2501.12486). Other columns in
        which runs of one size, length and seed differ are settings; the rest is not used.
    columns : mapping of str to str, optional
        Our name to the table's name, where they differ.
    where : mapping of str to value or list of values, optional
        Column to the values that a row must have to be read.
    rows : {"runs", "last", "checkpoints"}, optional
        What a row is; see :func:`proxytrain.fit.checkpoints.only_finished`. None: as recognised.
    drop : bool
        Whether rows whose loss is no finite number, or beyond any loss, are left out instead of refused: they diverged.

    Raises
    ------
    RequestError
        Names the file, column and row, the value and what is allowed.
    """
    source, raw = load(table)
    lengths = {len(v) for v in raw.values()}
    if len(lengths) > 1:
        raise RequestError(f"{source}: columns of different length ({', '.join(map(str, sorted(lengths)))} rows)")
    names = _named(source, raw, dict(columns or {}))
    have = _sizes_of(source, raw, names)
    if lengths == {0}:
        raise RequestError(f"{source}: has no rows")
    read = _Table(source, raw, np.arange(1, lengths.pop() + 1), names)
    read, said = _finished(_chosen(read, where or {}))
    if drop:
        read, more = _without_diverged(read)
        said += more
    numbers = {
        c: _numbers(read.raw[names[c]], c, read)
        for c in NUMERIC
        if c in names and c != "loss" and (c in have or c not in SCALE)
    }
    numbers |= dict(zip(("params", "tokens"), size_and_length(numbers)))
    labels = {c: as_labels(read.raw[names[c]]) for c in LABELS if c in names}
    only = have[0] if len(have) == 1 else None
    unknown = {c: as_labels(v) for c, v in read.raw.items() if c not in names.values()}
    if only is None:
        derived = next((c for c in ("params", "tokens") if c not in have), None)
        said += check_scale(source, {**numbers, **_unused_flops(read, numbers)}, unknown, derived)
    numbers.pop("flops", None)
    size = names.get("params", "params")
    runs = Runs(numbers, labels, read.row, source, tuple(c for c in raw if c not in names.values()), {}, size, only)
    refuse_parts(runs, unknown)
    losses = _floats(read.raw[names["loss"]], names["loss"], read)
    said += check_loss(source, names["loss"], losses, runs.params, runs.tokens)
    found = roles(runs, unknown)
    runs = replace(
        runs,
        numbers={**numbers, "loss": _in_range(losses, "loss", names["loss"], read)},
        settings={c: unknown[c] for c in found.settings},
        reading=(*_reading(names, have, found), *_of(where or {}, read, len(next(iter(raw.values()))))),
    )
    runs, more = only_finished(runs, unknown, rows)
    said += more + _with_seed(found)
    keys = [*runs.labels.values(), *runs.settings.values()]
    keys += [v for c, v in runs.numbers.items() if c not in ("params", "tokens", "loss")]
    return replace(runs, notes=tuple(said)).take(np.lexsort((*keys, runs.loss, runs.tokens, runs.params)))


def _named(source: str, raw: Mapping[str, Any], columns: dict[str, str]) -> dict[str, str]:
    """Our names to the table's: those given, then those that are equal, but for capitals where that leaves no doubt."""
    for ours, theirs in columns.items():
        if ours not in NUMERIC + LABELS:
            hint = did_you_mean(ours, NUMERIC + LABELS)
            raise RequestError(
                f"fit.columns: {ours!r} is not a column that is used; use {', '.join(NUMERIC + LABELS)}{hint}"
            )
        if theirs not in raw:
            hint = did_you_mean(str(theirs), list(raw))
            raise RequestError(f"{source}: no column {theirs!r} (for {ours}); it has {', '.join(raw)}{hint}")
    names = dict(columns)
    for ours in NUMERIC + LABELS:
        alike = [c for c in raw if c.lower() == ours and c not in columns.values()]
        if ours not in names and (ours in alike or len(alike) == 1):
            names[ours] = ours if ours in alike else alike[0]
    if "init_seed" not in names:
        seeds = [c for c in raw if c.lower() in SEED_NAMES and c not in names.values()]
        if seeds:
            names["init_seed"] = seeds[0]
    sizes = [c for c in raw if c.startswith("params") and c not in names.values()]
    if "params" not in names and sizes:
        if len(sizes) > 1:
            raise RequestError(
                f"{source}: has {', '.join(sizes)} and no params; say which is N: columns={{'params': '{sizes[0]}'}} "
                f"(on the command line fit.columns={{params:{sizes[0]}}})"
            )
        names["params"] = sizes[0]
    return names


def _sizes_of(source: str, raw: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """Which of params, tokens and flops are read.

    Raises
    ------
    RequestError
        Without a loss, or without any of them.
    """
    have = [c for c in SCALE if c in names]
    if {"params", "tokens"} <= set(have):
        have = ["params", "tokens"]
    missing = ([] if "loss" in names else ["loss"]) + ([] if have else ["params", "tokens"])
    if missing:
        hint = "; name them with columns={...} (on the command line fit.columns={...})" if raw else ""
        raise RequestError(f"{source}: no column {', '.join(missing)}; it has {', '.join(raw) or 'none'}{hint}")
    return have


def _chosen(read: _Table, where: Mapping[str, Any]) -> _Table:
    """The rows that have the values that `where` names."""
    for column, value in where.items():
        name = read.names.get(column, column)
        if name not in read.raw:
            hint = did_you_mean(column, list(read.raw))
            raise RequestError(f"fit.where: {read.source} has no column {column!r}; it has {', '.join(read.raw)}{hint}")
        values = value if isinstance(value, (list, tuple)) else [value]
        have, wanted = as_labels(read.raw[name]), set(as_labels(values).tolist())
        wanted |= {k for k in np.unique(have).tolist() if any(_equal(k, v) for v in values)}
        keep = np.isin(have, list(wanted))
        if not keep.any():
            there = np.unique(have).tolist()
            listed = ", ".join(there[:SHOWN_COLUMNS]) + (", ..." if len(there) > SHOWN_COLUMNS else "")
            raise RequestError(f"fit.where={{{column}: {value}}}: no row of {read.source} has it; there are {listed}")
        read = read.take(keep)
    return read


def _equal(text: str, value: Any) -> bool:
    """Whether a cell and a value are the same number, as 0.10 and 1e-1 are."""
    a, b = parse_number(text), parse_number(value if isinstance(value, (str, int, float)) else str(value))
    return a is not None and a == b


def _finished(read: _Table) -> tuple[_Table, list[str]]:
    """The runs that ended, where a column says which did."""
    for name in (c for c in read.raw if c.lower() in STATES):
        known = np.char.lower(as_labels(read.raw[name]))
        if not set(known.tolist()) <= FINISHED | UNFINISHED:
            continue
        done = np.isin(known, list(FINISHED))
        if done.all():
            return read, []
        if not done.any():
            raise RequestError(f"{read.source}: no row has finished (column {name}). Add finished runs.")
        rows = _some(read.row[~done])
        return read.take(done), [
            f"left out {int((~done).sum())} runs that have not finished (column {name}, rows {rows})"
        ]
    return read, []


def _without_diverged(read: _Table) -> tuple[_Table, list[str]]:
    """The rows whose loss is one (arXiv 2409.19913 leaves out the others)."""
    loss = _floats(read.raw[read.names["loss"]], "loss", read)
    good = np.isfinite(loss) & (loss < RANGES["loss"][1])
    if good.all():
        return read, []
    if not good.any():
        raise Refusal(f"{read.source}: all {len(good)} runs diverged; add smaller learning rates")
    count = int((~good).sum())
    return read.take(good), [f"left out {count} runs whose loss is no number below 20 (rows {_some(read.row[~good])})"]


def _unused_flops(read: _Table, numbers: Mapping[str, Array]) -> dict[str, Array]:
    """FLOPs that the table gives beside params and tokens, to compare them with."""
    if "flops" not in read.names or "flops" in numbers:
        return {}
    try:
        flops = read.raw[read.names["flops"]].astype(float)
    except (TypeError, ValueError):
        return {}
    return {"flops": flops} if np.isfinite(flops).all() and (flops > 0).all() else {}


def _of(where: Mapping[str, Any], read: _Table, rows: int) -> list[str]:
    return (
        [f"rows: {len(read.row)} of {rows}, those with {', '.join(f'{c}={v}' for c, v in where.items())}"]
        if where
        else []
    )


def _with_seed(found: Roles) -> list[str]:
    if not found.with_seed:
        return []
    return [
        f"{', '.join(found.with_seed)}: changes only together with the seed, so the effects cannot be told apart; the "
        "differences count as seed noise"
    ]


def _reading(names: Mapping[str, str], have: Sequence[str], found: Roles) -> tuple[str, ...]:
    """Lines on what was read as what, and what was not used."""

    def of(ours: str) -> str:
        return ours if names[ours] == ours else f"{ours} from {names[ours]}"

    read = [*have, *(c for c in NUMERIC if c in names and c not in SCALE)]
    parts = [f"read: {', '.join(map(of, read))}"]
    seeds = [of(c) for c in SEEDS if c in names]
    others = [of(c) for c in LABELS if c in names and c not in SEEDS]
    parts += [f"{what}: {', '.join(cs)}" for what, cs in (("seeds", seeds), ("labels", others)) if cs]
    if found.settings:
        parts.append(f"settings: {_some(found.settings)}")
    unused = [
        (found.unique, "a value of its own in each row"),
        (found.follows, "the same in all runs of one size and length"),
        (found.with_seed, "changes with the seed"),
        (found.others, "constant, measured or kept by a logger"),
        ([names["flops"]] if "flops" in names and "flops" not in have else [], "params and tokens are there"),
    ]
    lines = "; ".join(f"{_some(cs)} ({why})" for cs, why in unused if cs)
    return ("; ".join(parts), *([f"not used: {lines}"] if lines else []))


def _some(names: Any) -> str:
    return ", ".join(map(str, names[:SHOWN_COLUMNS])) + (
        f" and {len(names) - SHOWN_COLUMNS} more" if len(names) > SHOWN_COLUMNS else ""
    )


def _numbers(values: Any, column: str, read: _Table) -> Array:
    return _in_range(_floats(values, column, read), column, column, read)


def _floats(values: Any, column: str, read: _Table) -> Array:
    """(n,) numbers; `10M`, `1.6B` and `1,000,000` are numbers too."""
    out = np.empty(len(values))
    for i, value in enumerate(values):
        try:
            out[i] = float(value)
        except (TypeError, ValueError):
            text = value.strip() if isinstance(value, str) else None
            number = parse_number(text.replace(",", "") if text and _has_thousands(text) else text)
            if number is None:
                raise RequestError(
                    f"{read.source}: {column} in row {read.row[i]} is {str(value)!r}, not a number"
                ) from None
            out[i] = number
    return out


def _has_thousands(text: str) -> bool:
    """Whether commas stand before groups of three digits; one comma alone may be a decimal one."""
    groups = text.partition(".")[0].split(",")
    return len(groups) > 1 + ("." not in text) and all(len(g) == 3 and g.isdigit() for g in groups[1:])


def _in_range(out: Array, column: str, name: str, read: _Table) -> Array:
    low, high, meaning = RANGES[column]
    good = np.isfinite(out) & (out > low if low <= 0 else out >= low) & (out < high)
    if column == "loss_se":
        good &= out >= 0
    if not good.all():
        i = int(np.argmin(good))
        hint = "; fit.outliers=drop leaves out runs that diverged" if column == "loss" and not out[i] < high else ""
        if column in SCALE and 0 < out[i] < low:
            hint = ". In thousands, millions or billions? Give the whole number, as 10000000 or 10M"
        raise RequestError(f"{read.source}: {name} in row {read.row[i]} is {out[i]:g}; must be {meaning}{hint}")
    return out


def as_labels(values: Any) -> Array:
    """Return values as texts (n,); whole numbers have no decimal point, missing values are empty."""

    def text(value: Any) -> str:
        if value is None or (isinstance(value, float) and value != value):
            return ""
        whole = isinstance(value, (float, np.floating)) and float(value).is_integer()
        return str(int(value)) if whole else str(value).strip()

    return np.array([text(v) for v in values], dtype=str)
