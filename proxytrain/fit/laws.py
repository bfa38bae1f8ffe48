"""The laws of final loss, one short definition each. To add one: an entry in `LAWS` and a test.

A law is a sum of positive terms, each an amplitude times powers of columns; some laws join terms by a power. In logs a
term is linear in the parameters (log amplitude, exponents), see `forms`. Logs are centred on the data, which takes most
of the correlation between amplitude and exponent out of the problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxytrain.errors import RequestError

# name -> (lowest, highest, where the search starts); a smaller exponent is a constant in disguise
EXPONENT = (0.02, 2.5, (0.05, 0.1, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.4))
SPECIAL = {
    "gamma": (-0.8, 0.8, (-0.1, 0.1)),
    "k": (0.1, 1.6, (0.4, 0.9)),
    "R_tokens": (-0.7, 6.0, (1.5, 3.0)),  # logs
    "R_params": (-0.7, 6.0, (1.5, 3.0)),
}
LOGARITHMIC = ("R_tokens", "R_params")  # estimated in logs
COARSE = (0.1, 0.25, 0.4, 0.6, 1.0)  # starts of an exponent where there are three or more


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
