"""The laws of final loss, one short definition each. To add one: an entry in `LAWS` and a test.

A law is a sum of positive terms, each an amplitude times powers of columns; some laws join terms by a power. In logs a
term is linear in the parameters (log amplitude, exponents), see `forms`. Logs are centred on the data, which takes most
of the correlation between amplitude and exponent out of the problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.forms import Form
from proxytrain.fit.table import Runs, to_levels

# name -> (lowest, highest, where the search starts); a smaller exponent is a constant in disguise
EXPONENT = (0.02, 2.5, (0.05, 0.1, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.4))
SPECIAL = {
    "gamma": (-0.8, 0.8, (-0.1, 0.1)),
    "k": (0.1, 1.6, (0.4, 0.9)),
    "R_tokens": (-0.7, 6.0, (1.5, 3.0)),  # logs
    "R_params": (-0.7, 6.0, (1.5, 3.0)),
}
LOGARITHMIC = ("R_tokens", "R_params")  # estimated in logs
ONCE = 1.05  # epochs up to which a run counts as one that saw no text twice
UNIQUE_PARAMS = 0.051  # parameters that a unique token can feed (arXiv 2305.16264)
COARSE = (0.1, 0.25, 0.4, 0.6, 1.0)  # starts of an exponent where there are three or more
SAME_LEVEL = 0.02  # two tokens whose logs differ by less are one length
MOST_LEVELS = 16  # of a law with levels: more is a scatter, not a grid
AMPLITUDE_RANGE = 14.0  # a term below e^-14 of the loss is zero, and its parameters are not identified


@dataclass(frozen=True)
class Term:
    """`amplitude` x the product of column^-exponent; `per`: a column each of whose levels has its own amplitude."""

    amplitude: str
    powers: Mapping[str, str] = field(default_factory=dict)  # column -> name of its exponent
    per: str | None = None
    joined: bool = False  # under the law's power
    fades: str | None = None  # name of R*, after which further use of the (one) column counts little


@dataclass(frozen=True)
class Law:
    """A law by its terms. `meaning` maps each parameter to a phrase; `source` is where the form was published."""

    name: str
    formula: str
    source: str
    terms: tuple[Term, ...]
    meaning: Mapping[str, str]
    power: str | None = None  # the exponent k of (T_1^(1/k) + T_2^(1/k))^k over the joined terms

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that enter as powers, in order of appearance."""
        return tuple(dict.fromkeys(c for t in self.terms for c in t.powers))

    @property
    def per(self) -> str | None:
        """The column whose levels have amplitudes of their own: predictions exist at these levels only."""
        return next((t.per for t in self.terms if t.per), None)

    @property
    def exponents(self) -> tuple[str, ...]:
        """Names of the exponents, that of the power last where it is one of its own."""
        names = [e for t in self.terms for e in t.powers.values()] + ([self.power] if self.power else [])
        return tuple(dict.fromkeys(names + [t.fades for t in self.terms if t.fades]))

    @property
    def repeats(self) -> bool:
        """Whether the law knows what repeated tokens are worth (and so needs `unique_tokens`)."""
        return any(t.fades for t in self.terms)

    def grid(self, exponent: str) -> tuple[float, ...]:
        """Where the search for an exponent starts."""
        starts = SPECIAL.get(exponent, EXPONENT)[2]
        return COARSE if starts is EXPONENT[2] and len(self.exponents) > 2 else starts


_SIZE = {"A": "amplitude in params", "alpha": "exponent in params"}
_DATA = {"B": "amplitude in tokens", "beta": "exponent in tokens"}
_FLOOR = {"E": "loss without bounds on params and tokens, nats a token"}

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law(
            "chinchilla",
            "L = E + A params^-alpha + B tokens^-beta",
            "Hoffmann et al., arXiv 2203.15556",
            (Term("E"), Term("A", {"params": "alpha"}), Term("B", {"tokens": "beta"})),
            {**_FLOOR, **_SIZE, **_DATA},
        ),
        Law(
            "tied",
            "L = E + A params^-alpha + B tokens^-alpha",
            "Gadre et al., arXiv 2403.08540: L = E + (a M^eta + b M^-eta) C^-eta with M = tokens/params",
            (Term("E"), Term("A", {"params": "alpha"}), Term("B", {"tokens": "alpha"})),
            {**_FLOOR, **_SIZE, "B": "amplitude in tokens", "alpha": "exponent in params and in tokens"},
        ),
        Law(
            "interaction",
            "L = E + A params^-alpha + B params^-gamma tokens^-beta",
            "Chinchilla's law with a data term that depends on size, after arXiv 2506.10972",
            (Term("E"), Term("A", {"params": "alpha"}), Term("B", {"tokens": "beta", "params": "gamma"})),
            {**_FLOOR, **_SIZE, **_DATA, "gamma": "exponent in params of the data term, of either sign"},
        ),
        Law(
            "kaplan",
            "L = E + ((A params^-alpha)^(1/beta) + (B tokens^-beta)^(1/beta))^beta",
            "Kaplan et al., arXiv 2001.08361, eq. 1.5, with an irreducible loss E",
            (Term("E"), Term("A", {"params": "alpha"}, joined=True), Term("B", {"tokens": "beta"}, joined=True)),
            {**_FLOOR, **_SIZE, **_DATA},
            power="beta",
        ),
        Law(
            "kaplan_no_floor",
            "L = ((A params^-alpha)^(1/beta) + (B tokens^-beta)^(1/beta))^beta",
            "Kaplan et al., arXiv 2001.08361, eq. 1.5: N_c = A^(1/alpha), D_c = B^(1/beta)",
            (Term("A", {"params": "alpha"}, joined=True), Term("B", {"tokens": "beta"}, joined=True)),
            {**_SIZE, **_DATA},
            power="beta",
        ),
        Law(
            "joined",
            "L = E + ((A params^-alpha)^(1/k) + (B tokens^-beta)^(1/k))^k",
            "the six-parameter rival of Farseer, arXiv 2506.10972; k = 1 is Chinchilla's law",
            (Term("E"), Term("A", {"params": "alpha"}, joined=True), Term("B", {"tokens": "beta"}, joined=True)),
            {**_FLOOR, **_SIZE, **_DATA, "k": "how the terms join: 1 adds them, towards 0 the larger counts"},
            power="k",
        ),
        Law(
            "data_constrained",
            "L = E + A N'^-alpha + B D'^-alpha, D' = U (1 + R_tokens (1 - exp(-(tokens / U - 1) / R_tokens))), "
            "N' alike with 0.051 U unique parameters",
            "Muennighoff et al., arXiv 2305.16264",
            (
                Term("E"),
                Term("A", {"params": "alpha"}, fades="R_params"),
                Term("B", {"tokens": "alpha"}, fades="R_tokens"),
            ),
            {
                **_FLOOR,
                **_SIZE,
                "B": "amplitude in tokens",
                "alpha": "exponent in params and in tokens",
                "R_tokens": "repeats after which tokens are worth little",
                "R_params": "the same for parameters beyond those that the unique tokens feed",
            },
        ),
        Law(
            "params_at_tokens",
            "L(params, D_j) = E_j + A_j params^-alpha, one E and A for each length D_j",
            "Henighan et al., arXiv 2010.14701, at fixed tokens; the exponent is shared over lengths",
            (Term("E", per="tokens"), Term("A", {"params": "alpha"}, per="tokens")),
            {"E": "loss of an infinite model at this length", **_SIZE},
        ),
    )
}


# what "auto" combines: laws that differ in structure, so that their errors differ; the others are there by name
AUTO = ("chinchilla", "tied", "interaction", "kaplan", "params_at_tokens")


def get_law(name: str) -> Law:
    """The law of that name, or a RequestError that lists them."""
    if name not in LAWS:
        raise RequestError(f"fit.law={name!r}: must be auto, {', '.join(LAWS)}")
    return LAWS[name]


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
    return None
