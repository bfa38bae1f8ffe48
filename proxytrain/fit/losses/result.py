"""The result of a fit: estimates, what is not known, predictions with intervals, and the JSON that keeps it all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.core.extrapolation import EXTRAPOLATION_LIMIT, backtest_reached, beyond_backtest
from proxytrain.fit.core.level import checked_level
from proxytrain.fit.core.noise import Noise
from proxytrain.fit.core.options import FitConfig
from proxytrain.fit.losses.allocation import APPROACHES, Allocation, by_law
from proxytrain.fit.losses.data import FitData
from proxytrain.fit.losses.identify import ONCE
from proxytrain.fit.losses.isoflop import by_envelope, by_isoflop, points_of
from proxytrain.fit.losses.laws import EXPONENT
from proxytrain.fit.losses.nested import sentence
from proxytrain.fit.losses.predictor import HeldOutRun, Member, Predictor
from proxytrain.fit.tables.runs import size_and_length
from proxytrain.fit.tables.units import RANGES


@dataclass(frozen=True)
class Prediction:
    """Loss of one new run, nats a token, with its interval: floats, or arrays where arrays were asked.

    `gap` is compute (6 N D) over that of the largest run fitted; `note` is empty, or a label that must be shown.
    `parts` of a sweep's answer: "final losses" and "loss curves", what each says alone (loss, low, high, weight) or
    why it says nothing (refused); see :func:`proxytrain.fit.together.together`.
    """

    loss: Any
    low: Any
    high: Any
    level: float
    gap: Any
    note: str = ""
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Fit:
    """What `fit_losses` returns. Immutable; `predict` asks it, `save` writes it.

    Attributes
    ----------
    law : str
        As asked: a law's name, or "auto".
    backtest : list of dict
        One held-out run each: cut, trained_on, row, params, tokens, loss, prediction, low, high, gap, reach, spread,
        error.
    runs : dict of list
        The runs that were fitted: row, params, tokens, loss, fitted, residual (log), weight where given.
    data : FitData
        Where the table is from, and how it was read.
    warnings : list of str
    versions : dict of str
    prediction : Prediction or None
        Of the target, where one was given.
    """

    law: str
    predictor: Predictor
    config: FitConfig
    runs: dict[str, list[float]]
    data: FitData
    warnings: list[str]
    versions: dict[str, str]
    prediction: Prediction | None = None

    @property
    def members(self) -> tuple[Member, ...]:
        """The laws that take part, each estimated."""
        return self.predictor.members

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each law in the prediction."""
        return {m.bound.law.name: w for m, w in zip(self.members, self.predictor.weights)}

    @property
    def main(self) -> Member:
        """The law with the largest weight; the first of equals."""
        return self.members[int(np.argmax(self.predictor.weights))]

    @property
    def params(self) -> dict[str, float]:
        """Parameters of the main law as in its formula; of a law with levels, amplitudes are named "A@tokens"."""
        return dict(zip(self.main.bound.names, self.main.bound.natural(self.main.theta).tolist()))

    @property
    def stderr(self) -> dict[str, float]:
        """Bootstrap standard errors of `params`."""
        draws = self.main.bound.natural(self.main.draws)
        return dict(zip(self.main.bound.names, draws.std(0, ddof=1).tolist()))

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Bootstrap intervals of `params` at the fit's level."""
        tail = 0.5 - self.config.level / 2
        low, high = np.quantile(self.main.bound.natural(self.main.draws), [tail, 1 - tail], axis=0)
        return {n: (float(a), float(b)) for n, a, b in zip(self.main.bound.names, low, high)}

    @property
    def correlations(self) -> Array:
        """Bootstrap correlations (p, p) of the main law's log amplitudes (centred) and exponents."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.nan_to_num(np.corrcoef(self.main.draws.T))

    @property
    def objective(self) -> float:
        """Huber's loss at the estimate, summed over runs."""
        return self.main.objective

    @property
    def convergence(self) -> float:
        """Share of the starts that reached the best objective."""
        return self.main.convergence

    @property
    def not_identified(self) -> list[str]:
        """Parameters of the main law that the runs do not determine."""
        return not_identified(self.main)

    @property
    def noise(self) -> Noise:
        """Seed noise by component, of the main law."""
        return self.main.noise

    @property
    def residuals(self) -> Array:
        """log(loss / fitted) of each run (n,)."""
        return np.array(self.runs["residual"])

    @property
    def data_hash(self) -> str:
        """SHA-256 of the table as it was read."""
        return self.data.hash

    @property
    def backtest(self) -> list[dict[str, Any]]:
        return [_held_row(h) for h in self.predictor.evidence]

    def predict(
        self,
        params: Any = None,
        tokens: Any = None,
        level: float | None = None,
        unique_tokens: Any = None,
        flops: Any = None,
    ) -> Prediction:
        """Loss of one new run of `params` parameters at `tokens` tokens, with an interval for that run.

        Parameters
        ----------
        params, tokens, flops : float or array
            Two of the three, where flops are 6 params tokens; of a fit in one variable, that one. Broadcast against
            each other; arrays in, arrays out.
        level : float, optional
            Probability that the interval is meant to hold the loss; default: the fit's.
        unique_tokens : float or array, optional
            Different tokens among `tokens`, for a law that knows what repeats are worth; default: all.

        Raises
        ------
        Refusal
            Farther than three times the largest backtested log-gap (unless allowed in the config), in a direction in
            which the fit has no trend, or at tokens that a law with levels does not know.
        RequestError
            Values or a level that cannot be.
        """
        level = checked_level(self.config.level if level is None else level)
        n, d = self._place({"params": params, "tokens": tokens, "flops": flops})
        unique = d if unique_tokens is None else _positive("unique_tokens", unique_tokens)
        n, d, u = np.broadcast_arrays(n, d, unique)
        flat_n, flat_d, flat_u = (v.ravel().astype(float) for v in (n, d, u))
        columns = {
            "params": flat_n,
            "tokens": flat_d,
            "flops": 6.0 * flat_n * flat_d,
            "unique_tokens": np.minimum(flat_u, flat_d),
        }
        note = self._refuse_far(flat_n, flat_d)
        if (flat_d > ONCE * flat_u).any() and not any(m.bound.law.repeats for m in self.members):
            raise Refusal("no law of this fit knows what repeated tokens are worth; fit law=data_constrained")
        loss, low, high, _ = self.predictor.predict(columns, level)
        self._refuse_silent(columns, loss)
        if not np.isfinite(high).all():
            at = int(np.argmin(np.isfinite(high)))
            raise Refusal(
                f"at {self._name(flat_n[at], flat_d[at])} refits of the law explode: its loss there is not known; add "
                "larger or longer runs, or fit a law with fewer parameters, such as chinchilla"
            )
        gap = self.predictor.range.gap(flat_n, flat_d)
        shaped = [float(v[0]) if n.ndim == 0 else v.reshape(n.shape) for v in (loss, low, high, gap)]
        return Prediction(shaped[0], shaped[1], shaped[2], level, shaped[3], note)

    def _place(self, asked: dict[str, Any]) -> tuple[Array, Array]:
        """Params and tokens of what is asked; 1 where the fit does not know them."""
        given = {c: _positive(c, v) for c, v in asked.items() if v is not None}
        only = self.data.only
        if only and set(given) != {only}:
            raise RequestError(f"{', '.join(given) or 'nothing'} given: this fit knows {only} alone; give {only}=...")
        if not only and len(given) != 2:
            missing = ", ".join(f"{c}=null" for c in ("params", "tokens") if c not in given) or "flops"
            raise RequestError(f"{missing}: give params and tokens, or one of them and flops")
        return size_and_length(given)

    def aimed(self, **target: float) -> Fit:
        """This fit with the prediction of one run, as `predict` takes it: `prediction`, and `data.target`."""
        return replace(self, prediction=self.predict(**target), data=replace(self.data, target=target))

    @property
    def farthest(self) -> float:
        """Log of the largest gap that is predicted: three times the largest log-gap of the backtest."""
        return EXTRAPOLATION_LIMIT * self.predictor.tested

    def optimal(
        self, flops: float, level: float | None = None, by: str = "parametric", curves: Sequence[Any] | None = None
    ) -> Allocation:
        """Best size and length for a budget of `flops` (6 N D), with intervals; see :class:`Allocation`.

        `by` is "parametric" (the fitted laws), "isoflop" (parabolas through runs of one budget each) or "envelope" (the
        runs that no other beats at their compute; with `curves` of constant learning rate, and their params and
        tokens_per_step, the points along them). Raises a Refusal where the runs do not surround the best split, or do
        not reach so far.
        """
        if not (isinstance(flops, (int, float)) and 1e6 <= flops < 1e32):
            raise RequestError(f"flops={flops!r}: must be FLOPs, at least 1e6")
        if by not in APPROACHES:
            raise RequestError(f"by={by!r}: must be {', '.join(APPROACHES)}")
        level = checked_level(self.config.level if level is None else level)
        if curves is not None and by == "envelope":
            n, d, loss, run = points_of(curves)
            rng = np.random.default_rng([self.config.seed, 5])
            found = by_envelope(n, d, loss, self._luck, float(flops), level, rng, run)
        else:
            found = self._split(float(flops), level, by)
        self._refuse_far(np.array([found.params]), np.array([found.tokens]))
        return found

    @property
    def allocation(self) -> dict[str, Allocation | str]:
        """The best split of the largest compute that was fitted, by each approach; or why it cannot say."""
        out: dict[str, Allocation | str] = {}
        for by in APPROACHES:
            try:
                out[by] = self._split(self.predictor.range.compute, self.config.level, by)
            except Refusal as refusal:
                out[by] = str(refusal)
        return out

    def _split(self, flops: float, level: float, by: str) -> Allocation:
        if self.data.only:
            raise Refusal(f"the table knows {self.data.only} alone; give params and tokens for a best split")
        if by == "parametric":
            return by_law(self.predictor, flops, level)
        table = {c: np.array(v) for c, v in self.runs.items()}
        keep = table["tokens"] <= ONCE * table.get("unique_tokens", table["tokens"])
        for column in ("schedule", "group"):
            if column in table:
                keep &= table[column] == getattr(self.data, column)
        n, d, loss = (table[c][keep] for c in ("params", "tokens", "loss"))
        rng = np.random.default_rng([self.config.seed, 5])
        if by == "isoflop":
            return by_isoflop(n, d, loss, flops, level, rng)
        return by_envelope(n, d, loss, self._luck, flops, level, rng)

    @property
    def _luck(self) -> float:
        """Standard deviation of one run's log loss about the law."""
        return float(np.hypot(self.noise.run, self.noise.misfit))

    def _refuse_silent(self, columns: Mapping[str, Array], loss: Array) -> None:
        silent = np.flatnonzero(np.isnan(loss))
        if not len(silent):
            return
        here = {c: v[silent[:1]] for c, v in columns.items()}
        for member in self.members:
            member.bound.design(here)  # refuses, and says which runs are missing, off the levels of the law
        raise Refusal(
            f"at {self._name(here['params'][0], here['tokens'][0])} the fitted loss rises with size or "
            "length; add runs that are larger or longer, so that the trend there is known"
        )

    def _name(self, params: float, tokens: float) -> str:
        only = self.data.only
        if only:
            return f"{only}={6 * params * tokens if only == 'flops' else params * tokens:.4g}"
        return f"params={params:.4g} tokens={tokens:.4g}"

    def _refuse_far(self, params: Array, tokens: Array) -> str:
        reach = self.predictor.range.reach(params, tokens)
        far = int(reach.argmax())
        for column, values, most in (
            ("params", params, self.predictor.range.params),
            ("tokens", tokens, self.predictor.range.tokens),
            ("flops", 6.0 * params * tokens, self.predictor.range.compute),
        ):
            if values.max() > 1.5 * most and all(_vanished(m, column) for m in self.members):
                raise Refusal(
                    f"the fit shows no fall of the loss with {column}, so it cannot predict "
                    f"{column}={values.max():.4g}; add runs at more values of {column}, such as {column}={4 * most:.3g}"
                )
        if reach[far] <= self.farthest or reach[far] < 0.05:
            return ""
        gap, tested = float(np.exp(reach[far])), float(np.exp(self.predictor.tested))
        if not self.config.allow_extrapolation:
            large = self._towards(params[far], tokens[far], reach[far])
            raise beyond_backtest(
                self._name(params[far], tokens[far]),
                gap,
                beyond="the runs",
                tested=tested,
                supported=float(np.exp(self.farthest)),
                add=f"a run as large as {large}, which the backtest then predicts from the rest",
            )
        return f"EXTRAPOLATION: a gap of {gap:.3g}x, and {backtest_reached(tested)}; the interval is a guess"

    def _towards(self, params: float, tokens: float, reach: float) -> str:
        """The smallest run on the way to a target that brings it within the limit, held out or not."""
        seen, most = self.predictor.tested, self.predictor.range
        share = min(reach - EXTRAPOLATION_LIMIT * seen, reach / (1 + EXTRAPOLATION_LIMIT)) / reach * 1.02
        n, d = (m * max(v / m, 1.0) ** share for m, v in ((most.params, params), (most.tokens, tokens)))
        if self.data.only == "flops":
            n = most.compute / 6 * (6 * params / most.compute) ** share
        return self._name(n, d)

    def summary(self) -> list[str]:
        """Short lines for people: laws with numbers, what is not identified, noise, backtest, warnings."""
        lines = [f"{self.data.fitted} of {self.data.rows} runs from {self.data.source}"]
        if self.data.only in (None, "params"):
            others = [c for c in self.data.ignored_columns if c.startswith("params")]
            more = f" (the table has {', '.join(others)} too: fit.columns={{params:{others[0]}}})" if others else ""
            lines.append(f"N is the column {self.data.params}{more}")
        lines += self.data.reading
        for member, weight in zip(self.members, self.predictor.weights):
            share = f" (weight {weight:.2f})" if len(self.members) > 1 else ""
            lines.append(f"{member.bound.law.name}{share}: {member.bound.law.formula}")
            unknown = not_identified(member)
            values = member.bound.natural(member.theta)
            errors = member.bound.natural(member.draws).std(0, ddof=1)
            parts = [
                f"{n} = not identified" if n in unknown else f"{n} = {v:.4g} ± {s:.2g}"
                for n, v, s in zip(member.bound.names, values, errors)
            ]
            lines.append("  " + ", ".join(parts))
        if self.data.own_exponents:
            lines.append(sentence(self.data.own_exponents))
        luck = self.noise
        lines.append(f"seed noise of one run {100 * luck.run:.2g}% ({luck.source}); misfit {100 * luck.misfit:.2g}%")
        rows = self.backtest
        if rows:
            errors = np.abs([r["error"] for r in rows])
            inside = np.mean([r["low"] <= r["loss"] <= r["high"] for r in rows])
            lines.append(
                f"backtest: {len(rows)} predictions, gaps up to {max(r['gap'] for r in rows):.3g}x, median error "
                f"{100 * np.median(errors):.2g}%, worst {100 * errors.max():.2g}%, {100 * inside:.0f}% inside"
            )
        else:
            lines.append("backtest: none possible (too few runs to hold any out)")
        if not self.data.only:
            lines.append(f"best split of {self.predictor.range.compute:.3g} FLOPs, the largest fitted:")
            lines += [f"  {by}: {answer}" for by, answer in self.allocation.items()]
        if self.prediction is not None:
            p = self.prediction
            lines.append(
                f"target: {p.loss:.4f} [{p.low:.4f}, {p.high:.4f}] at {100 * p.level:g}%, gap {p.gap:.3g}x {p.note}"
            )
        return lines + [f"warning: {w}" for w in self.warnings]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit as JSON: under a temporary name, synced, then renamed."""
        from proxytrain.fit.core.document import one_line_lists, save_fit
        from proxytrain.fit.losses.saving import document_of

        save_fit(path, document_of(self), one_line_lists)


def not_identified(member: Member) -> list[str]:
    """Parameters at a bound, in the fit or in a tenth of its refits, or known to a factor only."""
    low, high = member.bound.bounds
    edge = 1e-3
    out = []
    amplitudes = len(member.bound.amplitudes)
    for i, name in enumerate(member.bound.names):
        at_bound = (member.draws[:, i] < low[i] + edge) | (member.draws[:, i] > high[i] - edge)
        spread = float(member.draws[:, i].std())
        if i < amplitudes:
            wide = spread > 1.0
        else:  # an exponent by its size; what may have either sign by its range
            wide = spread > (0.5 * member.theta[i] if low[i] > 0 else (high[i] - low[i]) / 4)
        if wide or at_bound.mean() > 0.1 or not low[i] + edge < member.theta[i] < high[i] - edge:
            out.append(name)
    return out


def _vanished(member: Member, column: str) -> bool:
    """Whether the law's trend in a column is gone: its amplitude is zero, or its exponent as good as zero."""
    law, names = member.bound.law, member.bound.names
    terms = [t for t in law.terms if column in t.powers]
    if not terms or law.bends:
        return False
    low, _ = member.bound.bounds
    zero = all(
        member.theta[i] < low[i] + 1e-3
        for t in terms
        for i, n in enumerate(names)
        if n == t.amplitude or n.startswith(t.amplitude + "@")
    )
    flat = all(member.theta[names.index(t.powers[column])] < EXPONENT[0] + 1e-3 for t in terms)
    return zero or flat


def _positive(name: str, value: Any) -> Array:
    low, high, meaning = RANGES[name]
    try:
        out = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise RequestError(f"{name}={value!r}: must be {meaning}") from None
    if not out.size or not (np.isfinite(out) & (out >= low) & (out < high)).all():
        raise RequestError(f"{name}={value!r}: must be {meaning}")
    return out


def _held_row(held: HeldOutRun) -> dict[str, Any]:
    row = asdict(held)
    row["error"] = held.prediction / held.loss - 1.0
    return row
