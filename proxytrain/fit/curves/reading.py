"""Curves from a folder of CSV files, one a run, with an `index.csv` that says how large each model is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from proxytrain.errors import RequestError
from proxytrain.fit.curves.curve import Curve

NAMES = ("file", "run", "name")  # columns of index.csv that name a run's file, with or without .csv
LOSSES = ("loss", "train_loss")


def read_curves(folder: str | os.PathLike[str]) -> tuple[list[Curve], list[str]]:
    """The curves of a folder, and what was assumed in reading them.

    Each CSV has `step` (updates made), `lr` and `loss` (or `train_loss`), and may have `val_loss`; cells may be empty.
    Between rows the learning rate is interpolated linearly, and before the first row it rises linearly from 0.
    `index.csv`, where there is one, lists the runs (`file`, `run` or `name`) and their `params` and `tokens_per_step`.

    Raises
    ------
    RequestError
        Names the file, the column, the row, and what is allowed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RequestError(
            f"curves={folder}: {'not a folder' if folder.exists() else 'no such folder'}; one CSV a run is needed"
        )
    index = folder / "index.csv"
    rows = _index(index) if index.is_file() else {p: {} for p in sorted(folder.glob("*.csv"))}
    if not rows:
        raise RequestError(f"curves={folder}: no CSV file in it; one a run with step, lr, loss is needed")
    curves = [_curve(path, about) for path, about in rows.items()]
    notes = ["between rows the learning rate is interpolated linearly"]
    late = [c.name for c, first in curves if first > 1]
    if late:
        notes.append(
            f"{len(late)} curves start after update 1: before that their rate is taken to rise linearly from 0"
        )
    return [c for c, _ in curves], notes


def _index(path: Path) -> dict[Path, dict[str, Any]]:
    table = _read(path)
    key = next((n for n in NAMES if n in table), None)
    if key is None:
        raise RequestError(f"{path}: no column {', '.join(NAMES)}; it has {', '.join(table)}")
    out: dict[Path, dict[str, Any]] = {}
    for i, name in enumerate(table[key]):
        file = path.parent / str(name)
        file = file if file.suffix == ".csv" and file.is_file() else path.parent / f"{name}.csv"
        if not file.resolve().is_relative_to(path.parent.resolve()):
            raise RequestError(f"{path}: row {i + 1} names {name!r}, which lies outside the folder")
        if not file.is_file():
            raise RequestError(f"{path}: row {i + 1} names {name!r}, but there is no {file.name}")
        if file in out:
            raise RequestError(f"{path}: {name!r} is listed twice")
        out[file] = {c: _number(table[c][i], path, c, i) for c in ("params", "tokens_per_step") if c in table}
    return out


def _curve(path: Path, about: dict[str, Any]) -> tuple[Curve, int]:
    table = _read(path)
    key = next((c for c in LOSSES if c in table), "val_loss" if "val_loss" in table else None)
    missing = [c for c in ("step", "lr") if c not in table] + ([] if key else ["loss"])
    if missing:
        raise RequestError(f"{path}: no column {', '.join(missing)}; it has {', '.join(table)}")
    assert key
    step, lr, loss = (_column(table, c, path) for c in ("step", "lr", key))
    if not np.isfinite(step).all():
        raise RequestError(f"{path}: step in row {int(np.argmin(np.isfinite(step))) + 1} is empty")
    turned = np.flatnonzero(np.diff(step) <= 0)
    if len(turned):
        i = int(turned[0])
        raise RequestError(f"{path}: step {step[i + 1]:g} in row {i + 2} comes after {step[i]:g}; steps must rise")
    rated, lost = np.isfinite(lr), np.isfinite(loss)
    if not rated.any() or not lost.any():
        raise RequestError(f"{path}: column {key if rated.any() else 'lr'} has no values")
    updates = int(step[lost][-1])
    if updates < 1 or updates > 1e8:
        raise RequestError(f"{path}: step {updates} in the last row; updates, from 1 to 1e8")
    at, rates = step[rated], lr[rated]
    if at[0] > 1:
        at, rates = np.r_[0.0, at], np.r_[0.0, rates]
    every = np.interp(np.arange(1, updates + 1), at, rates)
    val: dict[str, Any] = {}
    if key != "val_loss" and "val_loss" in table:
        validation = _column(table, "val_loss", path)
        known = np.isfinite(validation) & (step <= updates)
        if known.any():
            val = {"val_step": step[known], "val_loss": validation[known]}
    return Curve(lr=every, step=step[lost], loss=loss[lost], name=path.stem, **about, **val), int(step[rated][0])


def _read(path: Path) -> dict[str, Any]:
    import pandas

    try:
        frame = pandas.read_csv(path)
    except pandas.errors.EmptyDataError:
        raise RequestError(f"{path}: is empty") from None
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if not len(frame):
        raise RequestError(f"{path}: has no rows")
    return {str(c).strip(): frame[c].to_numpy() for c in frame.columns}


def _column(table: dict[str, Any], column: str, path: Path) -> np.ndarray:
    return np.array([_number(v, path, column, i) for i, v in enumerate(table[column])])


def _number(value: Any, path: Path, column: str, row: int) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise RequestError(f"{path}: {column} in row {row + 1} is {str(value)!r}, not a number") from None
