"""Curves from a folder of CSV files, one per run, with an `index.csv` that says how large each model is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.curves import units
from proxytrain.fit.curves.columns import check_columns, columns_of_index, columns_of_run, renamed
from proxytrain.fit.curves.curve import Curve

ENDLESS = 5  # usual distances of rows without a loss at the end, from which on they are missing
SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def read_curves(
    folder: str | os.PathLike[str], columns: Mapping[str, str] | None = None
) -> tuple[list[Curve], list[str]]:
    """Read the curves of a folder; also return what was assumed in reading them.

    Each CSV has `step` (updates made) or `tokens`, `lr` and `loss` (or `train_loss`), and may have `val_loss`; cells
    may be empty. Other names are recognised where only one column can be meant. Between rows the learning rate is
    interpolated linearly, and before the first row it rises linearly from 0. `index.csv`, where there is one, lists the
    runs (`file`, `run` or `name`) and their `params` and `tokens_per_step`.

    Parameters
    ----------
    folder : path
    columns : mapping of str to str, optional
        Our name to the files' name: of step, tokens, lr, loss, val_loss, params, tokens_per_step, file.

    Raises
    ------
    RequestError
        Names the file, the column, the row, and what is allowed.
    Refusal
        No run has finite losses to its last row.
    """
    folder = Path(folder)
    mapped = check_columns(columns)
    if not folder.is_dir():
        raise RequestError(
            f"curves={folder}: {'not a folder' if folder.exists() else 'no such folder'}; one CSV a run is needed"
        )
    index = folder / "index.csv"
    notes: list[str] = []
    if index.is_file():
        rows = _index(index, mapped, notes)
    else:
        rows = {p: {} for p in sorted(folder.glob("*.csv"))}
        given = [c for c in ("params", "tokens_per_step", "file") if c in mapped]
        if given:
            raise RequestError(f"fit.columns={given[0]}: {folder} has no index.csv to read it from. Add one.")
    if not rows:
        raise RequestError(f"curves={folder}: no CSV file in it; one a run with step, lr, loss is needed")
    read = [_CurveFile(path, about, mapped) for path, about in rows.items()]
    curves = [run.curve() for run in read]
    kept = [c for c in curves if c is not None]
    notes += _notes(read)
    if not kept:
        raise Refusal(f"curves={folder}: {notes[-1]}. No curve is left.")
    peaks = [float(c.lr.max()) for c in kept]
    ratios = [c.updates * c.tokens_per_step / c.params for c in kept if c.params and c.tokens_per_step]
    return kept, notes + units.notes_on_scale(peaks, ratios)


def _index(path: Path, mapped: Mapping[str, str], notes: list[str]) -> dict[Path, dict[str, Any]]:
    table = _read(path)
    found = columns_of_index(table, mapped, path)
    out: dict[Path, dict[str, Any]] = {}
    for i, name in enumerate(table[found["file"]]):
        file = path.parent / str(name)
        file = file if file.suffix == ".csv" and file.is_file() else path.parent / f"{name}.csv"
        if not file.resolve().is_relative_to(path.parent.resolve()):
            raise RequestError(f"{path}: row {i + 1} names {name!r}, which lies outside the folder")
        if not file.is_file():
            raise RequestError(f"{path}: row {i + 1} names {name!r}, but there is no {file.name}")
        if file in out:
            raise RequestError(f"{path}: {name!r} is listed twice")
        out[file] = {c: _amount(table[theirs][i], path, c, i) for c, theirs in found.items() if c != "file"}
    others = sorted(p.name for p in path.parent.glob("*.csv") if p not in out and p != path)
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        notes.append(f"not listed in index.csv and not read: {', '.join(others[:5])}{more}")
    unused = [c for c in table if c not in found.values()]
    if "params" not in found and unused:
        notes.append(f"index.csv has no params, so all runs count as one size; not read: {', '.join(unused)}")
    if other := renamed({c: t for c, t in found.items() if c != "file"}):
        notes.append(f"index.csv: {other}")
    return out


class _CurveFile:
    """One run's file, and what was assumed in reading it."""

    def __init__(self, path: Path, about: dict[str, Any], mapped: Mapping[str, str]) -> None:
        self.path, self.about, self.mapped = path, about, mapped
        self.table = _read(path)
        self.found = columns_of_run(self.table, mapped, path)
        self.first = 1  # update of the first rate
        self.from_tokens = self.last_zero = False
        self.repeated = 0  # rows that were filled forward
        self.lost_from: int | None = None

    def curve(self) -> Curve | None:
        """Return the curve; None where its losses stop being finite."""
        path, found = self.path, self.found
        step, lr, loss, validation = self._rows()
        rated, lost = np.isfinite(lr), np.isfinite(loss)
        if not rated.any() or not lost.any():
            raise RequestError(f"{path}: column {found['loss'] if rated.any() else found['lr']} has no values")
        step = self._updates(step, lr)
        self.lost_from = _lost_from(step, loss)
        if self.lost_from is not None:
            return None
        updates = int(step[lost][-1])
        if updates < 1 or updates > units.MOST_CURVE_UPDATES:
            raise RequestError(f"{path}: step {updates} in the last row; updates, from 1 to 1e8")
        units.refuse_other_losses(step[lost], loss[lost], found["loss"], path)
        lost, self.repeated = units.without_filled(loss, lost)
        at = step[rated]
        rates, self.last_zero = units.without_last_zero(lr[rated])
        self.first = int(at[0])
        if at[0] > 1:
            at, rates = np.r_[0.0, at], np.r_[0.0, rates]
        every = np.interp(np.arange(1, updates + 1), at, rates)
        val: dict[str, Any] = {}
        known = np.isfinite(validation) & (step <= updates)
        if known.any():
            val = {"val_step": step[known], "val_loss": validation[known]}
        return Curve(lr=every, step=step[lost], loss=loss[lost], name=path.stem, **self.about, **val)

    def _rows(self) -> tuple[Array, ...]:
        """Return counts, rates, losses and validation losses; rows of one step that complete each other become one."""
        counted = "step" if "step" in self.found else "tokens"
        step = _column(self.table, self.found[counted], self.path)
        if not np.isfinite(step).all():
            row = int(np.argmin(np.isfinite(step))) + 1
            raise RequestError(f"{self.path}: {self.found[counted]} in row {row} is empty")
        values = [
            _column(self.table, self.found[c], self.path) if c in self.found else np.full(len(step), np.nan)
            for c in ("lr", "loss", "val_loss")
        ]
        again = np.flatnonzero(np.diff(step) <= 0)
        if len(again) and not (np.diff(step) < 0).any():
            start = np.flatnonzero(np.r_[True, np.diff(step) > 0])
            largest, smallest = ([f.reduceat(v, start) for v in values] for f in (np.fmax, np.fmin))
            if all(np.array_equal(a, b, equal_nan=True) for a, b in zip(largest, smallest)):
                return (step[start], *largest)
        if len(again):
            i = int(again[0])
            raise RequestError(
                f"{self.path}: step {step[i + 1]:g} in row {i + 2} comes after {step[i]:g}; steps must rise. "
                "Of a run that was resumed or logged twice keep one row per step."
            )
        return (step, *values)

    def _updates(self, step: Array, lr: Array) -> Array:
        per_step = self.about.get("tokens_per_step")
        if "step" not in self.found:
            self.from_tokens = True
            return units.updates_of_tokens(step, per_step, self.path)
        if "step" in self.mapped:
            return step
        if units.are_tokens(step, per_step):
            self.from_tokens = True
            return units.updates_of_tokens(step, per_step, self.path)
        units.refuse_other_counts(step, lr, self.about, self.found["step"], self.path)
        return step


def _notes(runs: list[_CurveFile]) -> list[str]:
    notes = ["between rows the learning rate is interpolated linearly"]
    late = sum(run.first > 1 for run in runs)
    if late:
        notes.append(f"{late} curves start after update 1: before that their rate is taken to rise linearly from 0")
    for columns in dict.fromkeys(renamed(run.found) for run in runs):
        if columns:
            alike = [run.path.stem for run in runs if renamed(run.found) == columns]
            notes.append(f"read {columns}, in {'all curves' if len(alike) == len(runs) else some(alike)}")
    if names := [run.path.stem for run in runs if run.from_tokens]:
        notes.append(f"steps of {some(names)} count tokens: divided by tokens_per_step")
    if names := [run.path.stem for run in runs if run.last_zero]:
        notes.append(f"the last rate of {some(names)} is 0 after a constant rate: read as that rate")
    if names := [run.path.stem for run in runs if run.repeated]:
        rows = sum(run.repeated for run in runs)
        notes.append(f"left out {rows:,} rows of {some(names)} that repeat the loss before them, as if filled forward")
    for run in runs:
        if run.lost_from is not None:
            notes.append(
                f"left out {run.path.stem}: its loss is empty or not finite from step {run.lost_from:,} on, "
                "as after a divergence"
            )
    return notes


def some(names: list[str]) -> str:
    """Return the first names of many."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _lost_from(step: Array, loss: Array) -> int | None:
    """Return the step from which on losses are missing or not finite up to the last row; None where they are there."""
    if np.isinf(loss).any():
        return int(step[np.argmax(np.isinf(loss))])
    at = np.flatnonzero(np.isfinite(loss))
    usual = int(np.max(np.diff(at), initial=1))
    missing = len(loss) - 1 - int(at[-1])
    centred = abs(missing - int(at[0])) <= 1  # a mean about each row lacks as many rows at the start
    return int(step[at[-1] + 1]) if missing > max(ENDLESS, 2 * usual) and not centred else None


def _read(path: Path) -> dict[str, Any]:
    import pandas

    try:
        with path.open(encoding="utf-8-sig") as lines:
            comments = sum(1 for _ in takewhile(lambda line: line.startswith("#"), lines))
        frame = pandas.read_csv(path, encoding="utf-8-sig", skiprows=comments)
    except pandas.errors.EmptyDataError:
        raise RequestError(f"{path}: is empty") from None
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if not len(frame):
        raise RequestError(f"{path}: has no rows")
    names = [str(c).strip() for c in frame.columns]
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise RequestError(f"{path}: its first line is {names[0]!r}. Separate columns by commas.")
    return {name: frame[c].to_numpy() for name, c in zip(names, frame.columns)}


def _column(table: dict[str, Any], column: str, path: Path) -> Array:
    return np.array([_number(v, path, column, i) for i, v in enumerate(table[column])])


def _number(value: Any, path: Path, column: str, row: int) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise RequestError(f"{path}: {column} in row {row + 1} is {str(value)!r}, not a number") from None


def _amount(value: Any, path: Path, column: str, row: int) -> float:
    """Return a number of params or tokens, also where it is written as 10M or 1.3B."""
    text = str(value).strip()
    if re.fullmatch(r"\d{1,3}(,\d{3})+", text):
        return float(text.replace(",", ""))
    if text[-1:].upper() in SUFFIXES and text[:-1].replace(".", "", 1).strip().isdigit():
        return float(text[:-1]) * SUFFIXES[text[-1].upper()]
    number = _number(value, path, column, row)
    if column == "params" and 0 < number < 1e3:
        raise RequestError(
            f"{path}: params={number:g} in row {row + 1}; must be a number of at least 1000. "
            "In millions? Write them out."
        )
    return number
