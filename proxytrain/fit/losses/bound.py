"""A law bound to a table: its levels, its centred logs, its bounds, its design."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal
from proxytrain.fit.core.forms import Form
from proxytrain.fit.losses.farseer import FarseerForm
from proxytrain.fit.losses.identify import levels_of, usable, what_is_missing
from proxytrain.fit.losses.laws import EXPONENT, LOGARITHMIC, SPECIAL, Law
from proxytrain.fit.tables.runs import Runs

SAME_LEVEL = 0.02  # two tokens whose logs differ by less are one length
AMPLITUDE_RANGE = 14.0  # a term below e^-14 of the loss is zero, and its parameters are not identified
MOST_OFFSET = 0.3  # of a schedule, in log loss
UNIQUE_PARAMS = 0.051  # parameters that a unique token can feed (arXiv 2305.16264)


@dataclass(frozen=True)
class Bound:
    """A law bound to the levels and the centres of one table: what is estimated.

    `names` are the internal parameters, theta (p,): a log amplitude for each term (and level), then the exponents.
    """

    law: Law
    levels: tuple[Any, ...]  # of the `per` column, ascending; empty where there is none
    centre: Mapping[str, float]  # mean log of each power's column
    scale: float  # mean log loss
    offsets: tuple[str, ...] = ()  # schedules whose runs differ from those of the one asked for by a factor
    group: str = ""  # that is predicted

    @property
    def amplitudes(self) -> list[str]:
        """Names of the amplitudes, those of a `per` term with their level: "A@2e+06"."""
        out = []
        for term in self.law.terms:
            out += [f"{term.amplitude}@{_text(level)}" for level in self.levels] if term.per else [term.amplitude]
        return out

    @property
    def exponents(self) -> list[str]:
        return list(self.law.exponents)

    @property
    def form(self) -> Form | FarseerForm:
        if self.law.bends:
            return FarseerForm(self.centre["tokens"])
        place = self.names.index
        joined = tuple(i for i, t in enumerate(self.law.terms) if t.joined)
        fading = {
            i: (place(next(iter(t.powers.values()))), place(t.fades)) for i, t in enumerate(self.law.terms) if t.fades
        }
        return Form(joined, place(self.law.power) if self.law.power else -1, fading)

    @property
    def names(self) -> list[str]:
        return self.amplitudes + self.exponents + [f"offset@{schedule}" for schedule in self.offsets]

    @property
    def bounds(self) -> tuple[Array, Array]:
        k, ranges = len(self.amplitudes), [SPECIAL.get(e, EXPONENT) for e in self.exponents]
        ranges += [(-MOST_OFFSET, MOST_OFFSET, (0.0,))] * len(self.offsets)
        low = np.r_[np.full(k, self.scale - AMPLITUDE_RANGE), [r[0] for r in ranges]]
        high = np.r_[np.full(k, self.scale + 6.0), [r[1] for r in ranges]]
        return low, high

    @property
    def grids(self) -> list[tuple[float, ...]]:
        """Where the search for each exponent, and each offset, starts."""
        return [self.law.grid(name) for name in self.exponents] + [(0.0,)] * len(self.offsets)

    def design(self, columns: Mapping[str, Array]) -> Array:
        """X (n, terms, p): the exponent of term k at run i is X[i, k] @ theta.

        A run whose group or schedule the columns do not tell is of those that are predicted. Raises a Refusal where a
        run is not on one of the levels that the law knows.
        """
        n = len(columns["params"])
        x = np.zeros((n, len(self.law.terms), len(self.names)))
        position = {name: i for i, name in enumerate(self.names)}
        offset = 0
        for k, term in enumerate(self.law.terms):
            if term.per:
                x[np.arange(n), k, offset + self._level_index(self._levels_of(columns), term.per)] = 1.0
                offset += len(self.levels)
            else:
                x[:, k, offset] = 1.0
                offset += 1
            for column, exponent in term.powers.items():
                x[:, k, position[exponent]] -= np.log(columns[column]) - self.centre[column]
                if term.fades:
                    x[:, k, position[term.fades]] = _repeats(column, columns)
        if self.law.bends:
            size = np.log(columns["params"]) - self.centre["params"]
            x[:, 0, position["a3"]] = x[:, 1, position["a2"]] = x[:, 1, position["a1"]] = size
        for schedule in self.offsets:  # a factor on the loss is one on all of its terms
            if "schedule" in columns:
                x[:, :, position[f"offset@{schedule}"]] = (columns["schedule"] == schedule)[:, None]
        return x

    def covers(self, columns: Mapping[str, Array]) -> Array:
        """Mask (n,) of the runs on a level that the law knows; all, for a law without levels."""
        if not self.law.per:
            return np.ones(len(columns["params"]), dtype=bool)
        return self._distance(self._levels_of(columns)).min(1) <= SAME_LEVEL

    def _levels_of(self, columns: Mapping[str, Array]) -> Array:
        assert self.law.per
        return columns.get(self.law.per, np.full(len(columns["params"]), self.group))

    def _distance(self, values: Array) -> Array:
        """(n, levels): of log values; of names 0 where they are the same, else 1."""
        levels = np.asarray(self.levels)
        if self.law.per == "group":
            return (values[:, None] != levels[None, :]).astype(float)
        return np.abs(np.log(values)[:, None] - np.log(levels)[None, :])

    def _level_index(self, values: Array, column: str) -> Array:
        distance = self._distance(values)
        if (distance.min(1) > SAME_LEVEL).any():
            value = _text(values[int(distance.min(1).argmax())])
            raise Refusal(
                f"{self.law.name} predicts only at the {column} of its runs "
                f"({', '.join(map(_text, self.levels))}), not at {value}; "
                f"supply runs of three sizes with {column}={value}"
            )
        return distance.argmin(1)

    def natural(self, theta: Array) -> Array:
        """Parameters (..., p) as in the formula: amplitudes in uncentred units, then exponents, then offsets."""
        values = {name: np.array(v) for name, v in zip(self.names, np.moveaxis(np.asarray(theta, float), -1, 0))}
        if not self.law.bends:
            self._uncentre(values)
        if self.law.reading:
            values = self.law.reading(values, self.centre)
        return np.stack([values[name] for name in self.names], axis=-1)

    def _uncentre(self, values: dict[str, Array]) -> None:
        for term in self.law.terms:
            shift = sum((values[e] * self.centre[c] for c, e in term.powers.items()), 0.0)
            for name in [f"{term.amplitude}@{_text(v)}" for v in self.levels] if term.per else [term.amplitude]:
                with np.errstate(over="ignore"):
                    values[name] = np.exp(values[name] + shift)
        for name in LOGARITHMIC:
            if name in values:
                values[name] = np.exp(values[name])


def _text(level: Any) -> str:
    return level if isinstance(level, str) else f"{level:.6g}"


def _repeats(column: str, columns: Mapping[str, Array]) -> Array:
    """How often, beyond the first time, tokens or parameters are used: R_D = D / U - 1, R_N = N / U_N - 1."""
    unique = columns["unique_tokens"] * (UNIQUE_PARAMS if column == "params" else 1.0)
    return np.maximum(columns[column] / np.minimum(columns[column], unique) - 1.0, 0.0)


def bind(law: Law, runs: Runs) -> Bound:
    """Bind a law to a table. Raises a Refusal that names what is missing, and which runs would supply it."""
    problem = what_is_missing(law, runs)
    if problem:
        raise Refusal(problem)
    runs = runs.take(usable(law, runs))
    levels = tuple(np.unique(levels_of(law, runs)).tolist()) if law.per else ()
    centre = {c: float(np.log(runs.columns[c]).mean()) for c in law.columns}
    offsets = tuple(np.unique(runs.labels["schedule"]).tolist()) if "schedule" in runs.asked else ()
    return Bound(
        law,
        levels,
        centre,
        float(np.log(runs.loss).mean()),
        tuple(s for s in offsets if s != runs.asked["schedule"]),
        runs.asked.get("group", ""),
    )
