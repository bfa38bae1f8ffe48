"""A law bound to a table: its levels, its centred logs, its bounds, and whether the table identifies it at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from proxytrain.errors import Refusal
from proxytrain.fit.forms import Form
from proxytrain.fit.laws import EXPONENT, LOGARITHMIC, SPECIAL, Law
from proxytrain.fit.table import Runs, to_levels

SAME_LEVEL = 0.02  # two tokens whose logs differ by less are one length
MOST_LEVELS = 16  # of a law with levels: more is a scatter, not a grid
TOGETHER = 0.07  # scatter of log params and log tokens about one line, below which they are one variable
AMPLITUDE_RANGE = 14.0  # a term below e^-14 of the loss is zero, and its parameters are not identified
ONCE = 1.05  # epochs up to which a run counts as one that saw no text twice
UNIQUE_PARAMS = 0.051  # parameters that a unique token can feed (arXiv 2305.16264)


@dataclass(frozen=True)
class Bound:
    """A law bound to the levels and the centres of one table: what is estimated.

    `names` are the internal parameters, theta (p,): a log amplitude for each term (and level), then the exponents.
    """

    law: Law
    levels: tuple[float, ...]  # of the `per` column, ascending; empty where there is none
    centre: Mapping[str, float]  # mean log of each power's column
    scale: float  # mean log loss

    @property
    def amplitudes(self) -> list[str]:
        """Names of the amplitudes, those of a `per` term with their level: "A@2e+06"."""
        out = []
        for term in self.law.terms:
            out += [f"{term.amplitude}@{level:.6g}" for level in self.levels] if term.per else [term.amplitude]
        return out

    @property
    def exponents(self) -> list[str]:
        return list(self.law.exponents)

    @property
    def form(self) -> Form:
        place = self.names.index
        joined = tuple(i for i, t in enumerate(self.law.terms) if t.joined)
        fading = {
            i: (place(next(iter(t.powers.values()))), place(t.fades)) for i, t in enumerate(self.law.terms) if t.fades
        }
        return Form(joined, place(self.law.power) if self.law.power else -1, fading)

    @property
    def names(self) -> list[str]:
        return self.amplitudes + self.exponents

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        k, ranges = len(self.amplitudes), [SPECIAL.get(e, EXPONENT) for e in self.exponents]
        low = np.r_[np.full(k, self.scale - AMPLITUDE_RANGE), [r[0] for r in ranges]]
        high = np.r_[np.full(k, self.scale + 6.0), [r[1] for r in ranges]]
        return low, high

    def design(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """X (n, terms, p): the exponent of term k at run i is X[i, k] @ theta.

        Raises a Refusal where a run is not on one of the levels that the law knows.
        """
        n = len(columns["params"])
        x = np.zeros((n, len(self.law.terms), len(self.names)))
        position = {name: i for i, name in enumerate(self.names)}
        offset = 0
        for k, term in enumerate(self.law.terms):
            if term.per:
                x[np.arange(n), k, offset + self._level_index(columns[term.per], term.per)] = 1.0
                offset += len(self.levels)
            else:
                x[:, k, offset] = 1.0
                offset += 1
            for column, exponent in term.powers.items():
                x[:, k, position[exponent]] -= np.log(columns[column]) - self.centre[column]
                if term.fades:
                    x[:, k, position[term.fades]] = _repeats(column, columns)
        return x

    def covers(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Mask (n,) of the runs on a level that the law knows; all, for a law without levels."""
        if not self.law.per:
            return np.ones(len(columns["params"]), dtype=bool)
        distance = np.abs(np.log(columns[self.law.per])[:, None] - np.log(self.levels)[None, :])
        return distance.min(1) <= SAME_LEVEL

    def _level_index(self, values: np.ndarray, column: str) -> np.ndarray:
        levels = np.asarray(self.levels)
        distance = np.abs(np.log(values)[:, None] - np.log(levels)[None, :])
        nearest = distance.argmin(1)
        if (distance.min(1) > SAME_LEVEL).any():
            value = float(values[int(distance.min(1).argmax())])
            raise Refusal(
                f"{self.law.name} predicts only at the {column} of its runs "
                f"({', '.join(f'{v:.4g}' for v in levels)}), not at {value:.4g}; "
                f"supply runs of three sizes with {column}={value:.4g}"
            )
        return nearest

    def natural(self, theta: np.ndarray) -> np.ndarray:
        """Parameters (..., p) as in the formula: amplitudes in uncentred units, then exponents."""
        theta = np.asarray(theta, dtype=float)
        out = theta.copy()
        position = {name: i for i, name in enumerate(self.names)}
        offset = 0
        for term in self.law.terms:
            width = len(self.levels) if term.per else 1
            shift = sum(
                (theta[..., position[e]] * self.centre[c] for c, e in term.powers.items()), np.zeros(theta.shape[:-1])
            )
            with np.errstate(over="ignore"):
                out[..., offset : offset + width] = np.exp(theta[..., offset : offset + width] + shift[..., None])
            offset += width
        for name in LOGARITHMIC:
            if name in position:
                out[..., position[name]] = np.exp(theta[..., position[name]])
        return out


def _repeats(column: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """How often, beyond the first time, tokens or parameters are used: R_D = D / U - 1, R_N = N / U_N - 1."""
    unique = columns["unique_tokens"] * (UNIQUE_PARAMS if column == "params" else 1.0)
    return np.maximum(columns[column] / np.minimum(columns[column], unique) - 1.0, 0.0)


def bind(law: Law, runs: Runs) -> Bound:
    """Bind a law to a table. Raises a Refusal that names what is missing, and which runs would supply it."""
    problem = what_is_missing(law, runs)
    if problem:
        raise Refusal(problem)
    runs = runs.take(usable(law, runs))
    levels = tuple(np.unique(to_levels(runs.numbers[law.per])).tolist()) if law.per else ()
    centre = {c: float(np.log(runs.numbers[c]).mean()) for c in law.columns}
    return Bound(law, levels, centre, float(np.log(runs.loss).mean()))


def usable(law: Law, runs: Runs) -> np.ndarray:
    """Mask (n,) of the runs a law can use: no repeated tokens unless it knows them, two sizes at a level."""
    keep = np.ones(len(runs), dtype=bool)
    if "unique_tokens" in runs.numbers and not law.repeats:
        keep &= runs.tokens <= ONCE * runs.numbers["unique_tokens"]
    if law.per:
        level = to_levels(runs.numbers[law.per])
        for value in np.unique(level):
            at = keep & (level == value)
            if not at.any():
                continue
            if any(len(np.unique(to_levels(runs.numbers[c][at]))) < 2 for c in law.columns):
                keep[at] = False
    return keep


def what_is_missing(law: Law, runs: Runs) -> str | None:
    """Why the law is not identified by these runs, and which runs would help; None if it is."""
    if law.repeats and "unique_tokens" not in runs.numbers:
        return f"{law.name} needs the column unique_tokens"
    runs = runs.take(usable(law, runs))
    for column in law.columns:
        have = np.unique(to_levels(runs.numbers[column])) if len(runs) else np.array([])
        if law.per and len(runs):
            level = to_levels(runs.numbers[law.per])
            have = max((np.unique(to_levels(runs.numbers[column][level == v])) for v in np.unique(level)), key=len)
        if len(have) < 3:
            where = f" at one value of {law.per}" if law.per else ""
            got = f"only {', '.join(f'{v:.4g}' for v in have)}" if len(have) else "none"
            return (
                f"{law.name} needs at least three values of {column}{where}, the table has {got}; "
                f"add runs at {3 - len(have)} more value{'s' if len(have) < 2 else ''} of {column}"
            )
    if law.per and len(np.unique(to_levels(runs.numbers[law.per]))) > MOST_LEVELS:
        return f"{law.name} needs a grid: several sizes at each of a few {law.per}; this table is a scatter"
    cells = len(np.unique(np.c_[to_levels(runs.params), to_levels(runs.tokens)], axis=0))
    levels = len(np.unique(to_levels(runs.numbers[law.per]))) if law.per else 1
    free = sum(levels if t.per else 1 for t in law.terms) + len(law.exponents)
    if cells < free + 1:
        return (
            f"{law.name} has {free} parameters and needs at least {free + 1} different (params, tokens), "
            f"the table has {cells}; add {free + 1 - cells} more"
        )
    if {"params", "tokens"} <= set(law.columns):
        n, d = np.log(runs.params) - np.log(runs.params).mean(), np.log(runs.tokens) - np.log(runs.tokens).mean()
        apart = np.linalg.svd(np.c_[n, d], compute_uv=False)[-1] / np.sqrt(len(runs))
        if apart < TOGETHER:
            return (
                f"{law.name} needs params and tokens to vary apart, and here one follows from the other "
                f"({np.median(runs.tokens / runs.params):.3g} tokens a parameter); add runs at another ratio"
            )
    return None
