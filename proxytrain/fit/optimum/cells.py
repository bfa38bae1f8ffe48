"""Runs of one size and length, over learning rates (and batch sizes): what holds an optimum, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.tables.runs import to_levels
from proxytrain.fit.tables.table import read_runs

LEAST_CELL_RATES = 3  # that did not diverge, in a cell
SAME_RATE = 1.02  # rates and batches nearer than this factor are one


@dataclass(frozen=True)
class Cells:
    """Runs that bracket an optimum: `x` (n, k) log lr (and log batch), `loss` (n,) log loss, `cell` (n,) index.

    `about` maps params, tokens (and, where the optimum is one of the rate alone, batch_tokens) to (K,) values.
    """

    x: Array
    loss: Array
    cell: Array
    about: dict[str, Array]
    names: tuple[str, ...]  # of the columns of x
    warnings: tuple[str, ...]
    source: str
    runs: int  # of the table

    def __len__(self) -> int:
        return len(next(iter(self.about.values())))

    def take(self, keep: Array) -> Cells:
        """Those cells alone, by a mask (K,)."""
        inside = keep[self.cell]
        number = np.cumsum(keep) - 1
        about = {c: v[keep] for c, v in self.about.items()}
        return Cells(
            self.x[inside],
            self.loss[inside],
            number[self.cell[inside]],
            about,
            self.names,
            (),
            self.source,
            self.runs,
        )

    @property
    def compute(self) -> Array:
        """(K,) 6 N D."""
        return 6.0 * self.about["params"] * self.about["tokens"]

    def describe(self, k: int) -> str:
        return ", ".join(f"{c} {v[k]:.4g}" for c, v in self.about.items())


def read_cells(
    table: Any,
    schedule: str | None,
    columns: Mapping[str, str] | None,
    where: Mapping[str, Any] | None = None,
    rows: str | None = None,
) -> Cells:
    """Read a table and keep the cells whose optimum lies inside what was tried.

    Raises
    ------
    RequestError
        The table cannot be read, or has no learning rates.
    Refusal
        No cell brackets its optimum: which runs are missing.
    """
    runs = read_runs(table, columns, where=where, rows=rows, drop=True)
    source = runs.source
    if "lr" not in runs.numbers:
        raise RequestError(f"{source}: no column lr; the optimum of a learning rate needs runs over several")
    if runs.only:
        raise RequestError(f"{source}: only {runs.only}; params and tokens are needed")
    if runs.settings:
        name, values = next(iter(runs.settings.items()))
        kinds, counts = np.unique(values, return_counts=True)
        raise RequestError(
            f"{source}: runs of one size, length and learning rate differ in {', '.join(runs.settings)}. "
            f"Choose one, as fit.where={{{name}: {kinds[counts.argmax()]}}}."
        )
    warnings = list(runs.notes)
    if "schedule" in runs.labels:
        names, counts = np.unique(runs.labels["schedule"], return_counts=True)
        chosen = schedule or str(names[counts.argmax()])
        if chosen not in names:
            raise RequestError(f"fit.schedule={chosen}: no run has it; there are {', '.join(names)}")
        runs = runs.take(runs.labels["schedule"] == chosen)
        if len(names) > 1:
            others = ", ".join(n for n in names if n != chosen)
            warnings.append(f"schedule {chosen}; runs of {others} left out (each schedule has its own optimum)")
    size, length = to_levels(runs.params), to_levels(runs.tokens)
    rate = to_levels(runs.numbers["lr"], SAME_RATE - 1)
    batch = (
        to_levels(runs.numbers["batch_tokens"], SAME_RATE - 1) if "batch_tokens" in runs.numbers else np.ones(len(runs))
    )
    keys = [size, length]
    pairs = {tuple(k) for k in zip(size, length)}
    both = all(len(np.unique(batch[(size == n) & (length == d)])) >= LEAST_CELL_RATES for n, d in pairs)
    if not both:
        keys.append(batch)
    _, index = np.unique(np.array(keys), axis=1, return_inverse=True)
    index = index.reshape(-1)
    x = np.log(np.c_[rate, batch] if both else rate[:, None])
    varied: tuple[str, ...] = ("lr", "batch_tokens") if both else ("lr",)
    axes = ("params", "tokens") if both or "batch_tokens" not in runs.numbers else ("params", "tokens", "batch_tokens")
    first = np.array([np.flatnonzero(index == k)[0] for k in range(index.max() + 1)])
    about = {c: v[first] for c, v in zip(axes, (size, length, batch))}
    found = Cells(x, np.log(runs.loss), index, about, varied, (), source, len(runs))
    wrong = {k: why for k in range(len(found)) if (why := _not_bracketed(found, k))}
    if len(wrong) == len(found):
        raise Refusal(f"{source}: no optimum lies inside what was tried: {next(iter(wrong.values()))}")
    warnings += [f"left out: {why}" for why in wrong.values()]
    kept = found.take(np.array([k not in wrong for k in range(len(found))]))
    return Cells(kept.x, kept.loss, kept.cell, kept.about, varied, tuple(warnings), source, found.runs)


def _not_bracketed(cells: Cells, k: int) -> str | None:
    """Why a cell says nothing of its optimum, with what to add; None where it does."""
    inside = cells.cell == k
    for j, name in enumerate(cells.names):
        values = np.unique(cells.x[inside, j])
        what = f"{cells.describe(k)}: "
        if len(values) < LEAST_CELL_RATES:
            tried = ", ".join(f"{np.exp(v):.3g}" for v in values)
            return f"{what}{name} of {tried} only; at least {LEAST_CELL_RATES} values that do not diverge are needed"
        best = np.array([cells.loss[inside & (cells.x[:, j] == v)].min() for v in values])
        at = int(best.argmin())
        if at in (0, len(values) - 1):
            step = values[1] - values[0] if at == 0 else values[-1] - values[-2]
            more = values[at] - step if at == 0 else values[at] + step
            edge = "smallest" if at == 0 else "largest"
            return (
                f"{what}the lowest loss is at the {edge} {name} of {np.exp(values[at]):.3g} that did not diverge; add "
                f"{name} {np.exp(more):.3g}" + (", or values between, if that diverges" if at else "")
            )
    return None
