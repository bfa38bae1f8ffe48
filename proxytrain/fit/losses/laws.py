"""The laws of final loss, one short definition each. To add one: an entry in `LAWS` and a test.

A law is a sum of positive terms, each an amplitude times powers of columns; some laws join terms by a power. In logs a
term is linear in the parameters (log amplitude, exponents), see `forms`; of one law they bend with size, see `farseer`.
Logs are centred on the data, which takes most of the correlation between amplitude and exponent out of the problem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from proxytrain.arrays import Array
from proxytrain.errors import RequestError, did_you_mean

Values = dict[str, Array]  # parameters by name

# name -> (lowest, highest, where the search starts); a smaller exponent is a constant in disguise
EXPONENT = (0.02, 2.5, (0.05, 0.1, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.4))
SPECIAL = {
    "gamma": (-0.8, 0.8, (-0.1, 0.1)),
    "k": (0.1, 1.6, (0.4, 0.9)),
    "R_tokens": (-0.7, 6.0, (1.5, 3.0)),  # logs
    "R_params": (-0.7, 6.0, (1.5, 3.0)),
    "b1": (-4.5, 1.0, (-2.0, -1.4, -0.9)),  # Farseer's, in the form that is estimated: see `farseer`
    **dict.fromkeys(("a3", "a2"), (-3.0, 2.0, (-0.4, -0.1, 0.0))),
    "a1": (-0.6, 0.6, (-0.05, 0.05)),
    **dict.fromkeys(("g3", "g2", "g1"), (-1.0, 1.0, (-0.3, 0.3))),
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
    """A law by its terms. `when` says what it is for and `source` where the form was published; `meaning` maps each
    parameter to a phrase; `reading` turns the parameters as estimated into those of the formula, where they differ.
    """

    name: str
    when: str
    formula: str
    source: str
    terms: tuple[Term, ...]
    meaning: Mapping[str, str]
    power: str | None = None  # the exponent k of (T_1^(1/k) + T_2^(1/k))^k over the joined terms
    bends: tuple[str, ...] = ()  # Farseer's slopes and bends in size of its two amplitudes and its exponent
    reading: Callable[[Values, Mapping[str, float]], Values] | None = None  # of (parameters, centre of log column)
    starts: int = 24  # of the search

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that enter as powers, in order of appearance."""
        names = [c for t in self.terms for c in t.powers]
        return tuple(dict.fromkeys((["params"] if self.bends else []) + names))

    @property
    def per(self) -> str | None:
        """The column whose levels have amplitudes of their own: predictions exist at these levels only."""
        return next((t.per for t in self.terms if t.per), None)

    @property
    def single(self) -> str | None:
        """The one variable of a law in one variable."""
        return self.columns[0] if len(self.columns) == 1 and not self.per else None

    @property
    def exponents(self) -> tuple[str, ...]:
        """Names of the exponents, that of the power last where it is one of its own."""
        names = [e for t in self.terms for e in t.powers.values()] + ([self.power] if self.power else [])
        return tuple(dict.fromkeys(names + [t.fades for t in self.terms if t.fades] + list(self.bends)))

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
_CHINCHILLA = (Term("E"), Term("A", {"params": "alpha"}), Term("B", {"tokens": "beta"}))
_JOINED = (Term("E"), Term("A", {"params": "alpha"}, joined=True), Term("B", {"tokens": "beta"}, joined=True))

_PARTS = ("the log exponent in tokens", "the data term's log amplitude", "the log floor")


def _by_compute(params: Values, centre: Mapping[str, float]) -> Values:
    """E + A N^-2eta + B D^-2eta at 6 N D = C and D = M N: E + (a M^eta + b M^-eta) C^-eta."""
    eta = params["eta"] / 2
    return {**params, "a": params["a"] * 6**eta, "b": params["b"] * 6**eta, "eta": eta}


def _farseer(params: Values, centre: Mapping[str, float]) -> Values:
    from proxytrain.fit.losses.farseer import published

    return published(params, centre["params"], centre["tokens"])


def _power_in(column: str, what: str) -> Law:
    """A power plus a constant in one variable."""
    return Law(
        f"power_in_{column}",
        f"{what}: a power plus a constant through the best run at each {column}",
        f"L = E + A {column}^-alpha",
        "Hestness et al., arXiv 1712.00409; Henighan et al., arXiv 2010.14701",
        (Term("E"), Term("A", {column: "alpha"})),
        {"E": f"loss at endless {column}", "A": f"amplitude in {column}", "alpha": f"exponent in {column}"},
    )


LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law(
            "chinchilla",
            "sizes and lengths that vary apart: the usual choice",
            "L = E + A params^-alpha + B tokens^-beta",
            "Hoffmann et al., arXiv 2203.15556",
            _CHINCHILLA,
            {**_FLOOR, **_SIZE, **_DATA},
        ),
        Law(
            "tied",
            "few runs: one exponent for size and length",
            "L = E + A params^-alpha + B tokens^-alpha",
            "Gadre et al., arXiv 2403.08540; `over_training` is the same law by compute and ratio",
            (Term("E"), Term("A", {"params": "alpha"}), Term("B", {"tokens": "alpha"})),
            {**_FLOOR, **_SIZE, "B": "amplitude in tokens", "alpha": "exponent in params and in tokens"},
        ),
        Law(
            "over_training",
            "`tied` read by compute C = 6 params tokens and ratio M = tokens/params",
            "L = E + (a M^eta + b M^-eta) C^-eta",
            "Gadre et al., arXiv 2403.08540: eta = alpha/2, a = A 6^eta, b = B 6^eta",
            (Term("E"), Term("a", {"params": "eta"}), Term("b", {"tokens": "eta"})),
            {
                **_FLOOR,
                "a": "amplitude of the term that grows with M",
                "b": "amplitude of the term that falls with M",
                "eta": "exponent in compute, whatever M",
            },
            reading=_by_compute,
        ),
        Law(
            "interaction",
            "many runs: what tokens are worth depends on size",
            "L = E + A params^-alpha + B params^-gamma tokens^-beta",
            "Chinchilla's law with a data term that depends on size, after arXiv 2506.10972",
            (Term("E"), Term("A", {"params": "alpha"}), Term("B", {"tokens": "beta", "params": "gamma"})),
            {**_FLOOR, **_SIZE, **_DATA, "gamma": "exponent in params of the data term, of either sign"},
        ),
        Law(
            "kaplan",
            "size and length join by a power, over a floor",
            "L = E + ((A params^-alpha)^(1/beta) + (B tokens^-beta)^(1/beta))^beta",
            "Kaplan et al., arXiv 2001.08361, eq. 1.5, with an irreducible loss E",
            _JOINED,
            {**_FLOOR, **_SIZE, **_DATA},
            power="beta",
        ),
        Law(
            "kaplan_no_floor",
            "to compare with early papers; without a floor it predicts far too low",
            "L = ((A params^-alpha)^(1/beta) + (B tokens^-beta)^(1/beta))^beta",
            "Kaplan et al., arXiv 2001.08361, eq. 1.5: N_c = A^(1/alpha), D_c = B^(1/beta)",
            _JOINED[1:],
            {**_SIZE, **_DATA},
            power="beta",
        ),
        Law(
            "joined",
            "many precise runs: how size and length join is fitted too",
            "L = E + ((A params^-alpha)^(1/k) + (B tokens^-beta)^(1/k))^k",
            "the six-parameter rival of Farseer, arXiv 2506.10972; k = 1 is Chinchilla's law",
            _JOINED,
            {**_FLOOR, **_SIZE, **_DATA, "k": "how the terms join: 1 adds them, towards 0 the larger counts"},
            power="k",
        ),
        Law(
            "farseer",
            "large dense grids (four lengths at each of four sizes and more); explodes beyond small ones",
            "L = exp(a3 params^g3 + b3) + exp(a2 params^g2 + b2) tokens^-exp(a1 params^g1 + b1)",
            "arXiv 2506.10972; as g goes to 0, a params^g + b is a line in log params, and a and b are endless",
            (Term("b3"), Term("b2", {"tokens": "b1"})),
            {
                **{f"a{i}": f"slope in size of {what}" for i, what in enumerate(_PARTS, 1)},
                **{f"b{i}": f"constant of {what}" for i, what in enumerate(_PARTS, 1)},
                **{f"g{i}": f"bend in size of {what}" for i, what in enumerate(_PARTS, 1)},
            },
            bends=("a3", "a2", "a1", "g3", "g2", "g1"),
            reading=_farseer,
            starts=256,
        ),
        Law(
            "data_constrained",
            "repeated tokens (column unique_tokens)",
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
            "shared_exponents",
            "several texts or mixtures (column group): one shape, factors of their own; tested against own exponents",
            "L_j = E_j + A_j params^-alpha + B_j tokens^-beta, one E, A and B for each group j",
            "Chinchilla's law with a factor a group, after Fernandes et al., arXiv 2302.09650",
            tuple(replace(term, per="group") for term in _CHINCHILLA),
            {**_FLOOR, **_SIZE, **_DATA},
        ),
        Law(
            "params_at_tokens",
            "a target as long as some of the runs: no trend in length is assumed",
            "L(params, D_j) = E_j + A_j params^-alpha, one E and A for each length D_j",
            "Henighan et al., arXiv 2010.14701, at fixed tokens; the exponent is shared over lengths",
            (Term("E", per="tokens"), Term("A", {"params": "alpha"}, per="tokens")),
            {"E": "loss of an infinite model at this length", **_SIZE},
        ),
        _power_in("params", "only size varies"),
        _power_in("tokens", "only length varies"),
        _power_in("flops", "only compute is known, or size and length grow together"),
    )
}


# what "auto" combines: laws that differ in structure, so that their errors differ; the others are there by name
AUTO = ("chinchilla", "tied", "interaction", "kaplan", "joined", "params_at_tokens")


def get_law(name: str) -> Law:
    """The law of that name, or a RequestError that lists them."""
    if name not in LAWS:
        raise RequestError(
            f"fit.law={name}: unknown{did_you_mean(name, LAWS)}; allowed are auto, {', '.join(LAWS)} "
            "(`proxytrain fit --help` says what each is for)"
        )
    return LAWS[name]


def law_lines() -> str:
    """What each law is for, a line each."""
    width = max(map(len, LAWS))
    lines = [("auto", f"the backtest weighs {', '.join(AUTO)}")] + [(law.name, law.when) for law in LAWS.values()]
    lines += [
        ("optimum", "runs over learning rates (and batches) at several sizes: the optimal rate and batch at another"),
        (
            "critical_batch",
            "curves at several batch sizes (batch_tokens, step, loss): B_crit, fewest updates and tokens",
        ),
    ]
    return "\n".join(f"  {name:{width}}  {when}" for name, when in lines)
