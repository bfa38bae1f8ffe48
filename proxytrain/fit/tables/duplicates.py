"""Rows of one and the same run: copies, near copies, contradictions. None of them shows seed noise."""

from __future__ import annotations

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import RequestError
from proxytrain.fit.tables.runs import SAME, Runs, cell_index, numbered

SAME_LOSS = 0.001  # losses of one run that differ by less (relative) are one: rounded, or run again elsewhere
SHOWN_RUNS = 6


def once(runs: Runs) -> tuple[Runs, list[str]]:
    """Return each run once, and what was left out.

    Rows that agree in every column are copies. Rows of one seed, size, length and setting are one run as well: where
    their losses nearly agree, the most precise is kept.

    Raises
    ------
    RequestError
        Where the losses of one run differ: names the rows.
    """
    columns = [*runs.numbers.values(), *runs.labels.values(), *runs.settings.values()]
    number = np.stack([np.unique(c, return_inverse=True)[1].reshape(-1) for c in columns])
    first = np.unique(number, axis=1, return_index=True)[1]
    copy = ~np.isin(np.arange(len(runs)), first)
    said = []
    if copy.any():
        said.append(
            f"left out {int(copy.sum())} rows that repeat others in every column (rows {_rows(runs.row[copy])}): "
            "copies show no seed noise; runs under other seeds need a column init_seed or data_seed"
        )
        runs = runs.take(~copy)
    near = _of_one_seed(runs) if runs.seeds else _rounded(runs)
    if near.any():
        said.append(
            f"left out {int(near.sum())} rows that repeat another run with nearly the same loss (rows "
            f"{_rows(runs.row[near])}): a rounded copy, or the same seed run again, shows no seed noise"
        )
        runs = runs.take(~near)
    return runs, said


def _of_one_seed(runs: Runs) -> Array:
    """Mask (n,) of the rows to leave out, so that each seed has one loss at each size, length and setting."""
    run = numbered([cell_index(runs, SAME), *runs.seeds])
    out = np.zeros(len(runs), dtype=bool)
    for i in np.flatnonzero(np.bincount(run) > 1):
        rows = np.flatnonzero(run == i)
        loss = runs.loss[rows]
        if float(np.ptp(loss)) > max(SAME_LOSS * float(loss.min()), _rounding(min(map(_decimals, loss.tolist())))):
            listed = ", ".join(
                f"{runs.row[r]} ({runs.loss[r]:.6g})" for r in rows[np.argsort(runs.row[rows])][:SHOWN_RUNS]
            )
            more = f" ({several} such groups of rows)" if (several := int((np.bincount(run) > 1).sum())) > 1 else ""
            raise RequestError(
                f"{runs.source}: rows {listed} have one seed, size and length, and other losses{more}. Remove all but "
                "the finished run, or add a column that tells them apart."
            )
        best = rows[int(np.argmax([_decimals(v) for v in loss.tolist()]))]
        out[rows[rows != best]] = True
    return out


def _rounded(runs: Runs) -> Array:
    """Mask (n,) of rounded copies, where most of the runs that share a size and length are such."""
    cell = cell_index(runs, SAME)
    out = np.zeros(len(runs), dtype=bool)
    pairs = 0
    for i in np.flatnonzero(np.bincount(cell) > 1):
        rows = sorted(np.flatnonzero(cell == i).tolist(), key=lambda r: -_decimals(float(runs.loss[r])))
        pairs += len(rows) - 1
        for k, row in enumerate(rows[1:], start=1):
            digits = _decimals(float(runs.loss[row]))
            fuller = [r for r in rows[:k] if not out[r] and _decimals(float(runs.loss[r])) > digits]
            out[row] = any(abs(runs.loss[r] - runs.loss[row]) <= _rounding(digits) for r in fuller)
    return out if out.sum() >= max(3, pairs / 2) else np.zeros(len(runs), dtype=bool)


def _rounding(digits: int) -> float:
    """The most that a loss changes when it is rounded to so many digits after the point, or to two: 3.60 reads 3.6."""
    return 0.51 * 10.0 ** -max(digits, 2)


def _decimals(value: float) -> int:
    """Digits after the decimal point that a loss is written with."""
    return len(repr(value).partition(".")[2]) if "e" not in repr(value) else 16


def _rows(rows: Array) -> str:
    return ", ".join(map(str, np.sort(rows)[:SHOWN_RUNS])) + (", ..." if len(rows) > SHOWN_RUNS else "")
