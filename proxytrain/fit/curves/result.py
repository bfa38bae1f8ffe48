"""What `fit_curves` returns: laws with weights, the curve of any schedule with its band, the best length of a decay."""

from __future__ import annotations

import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.core.extrapolation import EXTRAPOLATION_LIMIT, beyond_backtest
from proxytrain.fit.core.holdout import calibration
from proxytrain.fit.core.level import checked_level
from proxytrain.fit.curves.data import CurveData
from proxytrain.fit.curves.estimate import Estimate
from proxytrain.fit.curves.history import History, nodes
from proxytrain.fit.curves.ratio import Ratio

LEAST_REACH = float(np.log(4.0))  # a log-gap that is predicted whatever the backtest reached
WIDEST_BAND = 3.0  # how far held-out errors may widen the band
PRIOR_BAND_ERROR = 0.004  # error of log loss for each e-fold beyond what was fitted, until the backtest speaks
TESTED = 0.1  # log of how much longer or larger a held-out run must be, for its error to tell of still longer ones
UNTESTED = 0.05  # half-width at 90% for each e-fold of length where no length was held out; see FINDINGS.md


@dataclass(frozen=True)
class CurvePrediction:
    """Loss of one new run after each update, (S,), with pointwise bands; `note` is a label that must be shown."""

    loss: Array
    low: Array
    high: Array
    level: float
    note: str = ""

    @property
    def final(self) -> tuple[float, float, float]:
        """Loss, low and high after the last update."""
        return float(self.loss[-1]), float(self.low[-1]), float(self.high[-1])


@dataclass(frozen=True)
class HeldOutCurve:
    """One curve, predicted without it.

    `error` is the mean of log(prediction / measured loss) over its later part, `rms` the root mean square.
    """

    cut: str
    curve: str
    updates: int
    params: float | None
    loss: float  # at its end
    prediction: float
    low: float
    high: float
    error: float
    rms: float
    spread: float
    longer: float  # log of how far it lay beyond what was fitted, in length and in size
    larger: float

    @property
    def reach(self) -> float:
        return self.longer + self.larger

    @property
    def end(self) -> float:
        """Return log(prediction / measured loss) at its end."""
        return float(np.log(self.prediction / self.loss))


@dataclass(frozen=True)
class Decay:
    """Final loss against the share of a run that decays: arrays (n,); `best`, and the shares that may be as good."""

    share: Array
    loss: Array
    best: float
    as_good: tuple[float, float]


@dataclass(frozen=True)
class Covered:
    """What was fitted: longest run in updates, sizes, peak rates, and the peak that rates are counted in."""

    updates: int
    params: tuple[float, ...]
    peaks: tuple[float, ...]
    peak: float
    scaling: float  # r: a peak twice as high counts 2^r times


@dataclass(frozen=True)
class CurveFit:
    """Laws of curves with their weights.

    Attributes
    ----------
    law : str
        As asked.
    members : tuple of Estimate
        Laws, estimated; `weights` in the same order.
    predicts : str
        "validation" where the curves had validation losses beside training losses, else "loss".
    """

    law: str
    members: tuple[Estimate, ...]
    weights: tuple[float, ...]
    covered: Covered
    backtest: tuple[HeldOutCurve, ...]
    ratio: Ratio | None
    warnings: list[str]
    data: CurveData
    versions: dict[str, str]
    level: float = 0.9
    allow_extrapolation: bool = False
    curves: tuple[Any, ...] = field(default=(), repr=False)  # those fitted; empty in a fit that was loaded

    @property
    def main(self) -> Estimate:
        """The law with the largest weight."""
        return self.members[int(np.argmax(self.weights))]

    @property
    def predicts(self) -> str:
        return "validation" if self.ratio else "loss"

    @property
    def params(self) -> dict[str, float]:
        """Parameters of the main law in its published form.

        Rates are absolute where all curves have one peak, and in units of the peak otherwise. L0, A and B of several
        sizes are E + a N^-a1, A N^-a2 and B N^-a3.
        """
        return dict(zip(self._natural_names, natural(self.main, self.main.theta, self._unit).tolist()))

    @property
    def stderr(self) -> dict[str, float]:
        """Standard errors of `params`, linearised."""
        main, unit = self.main, self._unit
        at = natural(main, main.theta, unit)
        step = 1e-5 * np.maximum(np.abs(main.theta), 1e-3)
        slope = np.array([(natural(main, main.theta + d, unit) - at) / d.sum() for d in np.diag(step)]).T
        variance = np.einsum("ij,jk,ik->i", slope, main.covariance, slope)
        return dict(zip(self._natural_names, np.sqrt(np.maximum(variance, 0.0)).tolist()))

    @property
    def not_identified(self) -> dict[str, float]:
        """Shape parameters of the main law that their prior decides: the share of the precision that it gives."""
        return {n: s for n, s in self.main.prior_share.items() if s > 0.5}

    def predict(self, lr: Any, params: float | None = None, level: float | None = None) -> CurvePrediction:
        """The whole curve of one new run under a schedule.

        Parameters
        ----------
        lr : (S,) array
            Learning rate of each update.
        params : float, optional
            Size, counted as in the curves; needed where those have several sizes.
        level : float, optional
            Of the pointwise band.

        Raises
        ------
        RequestError
            If `lr` is no schedule, or `params` is missing or cannot be.
        Refusal
            If the run lies farther out than the backtest supports, or the curves say nothing about other sizes.
        """
        from scipy.stats import t as student

        lr = _schedule(lr)
        level = checked_level(self.level if level is None else level)
        note = self._judge(len(lr), params, float(lr.max()))
        step = nodes(lr)
        centre, variance = self.outlook(lr, step, params)
        half = float(student.ppf(0.5 + level / 2, self.freedom)) * np.sqrt(variance)
        history = np.arange(1, len(lr) + 1)
        loss, low, high = (np.interp(history, step, v) for v in (centre, centre - half, centre + half))
        return CurvePrediction(np.exp(loss), np.exp(low), np.exp(high), level, note)

    def outlook(self, lr: Array, step: Array, params: float | None = None) -> tuple[Array, Array]:
        """Log loss (M,) expected after `step` (M,) updates, and the variance of one new run's."""
        scale = (lr.max() / self.covered.peak) ** self.covered.scaling
        history = History.of(lr, step, float(scale))
        weight = np.array(self.weights)[:, None]
        views = [m.log_loss(history, np.log(params / m.reference) if params else 0.0) for m in self.members]
        centres = np.array([v for v, _ in views])
        own = np.array([np.einsum("ij,jk,ik->i", g, m.covariance, g) for (_, g), m in zip(views, self.members)])
        centre = (weight * centres).sum(0)
        between = (weight * (centres - centre) ** 2).sum(0)
        luck = sum(w * m.luck**2 for w, m in zip(self.weights, self.members))
        known = len({h.cut for h in self.backtest})
        beyond = (PRIOR_BAND_ERROR * self.reach(step, params)) ** 2 / (1.0 + known)
        spread = ((weight * own).sum(0) + between + luck + beyond) * self.calibration**2
        spread = np.maximum(spread, (self.floor(step, params) / 1.645) ** 2)
        spread = spread + self.data.unsure**2  # what smoothing moved
        if self.ratio:
            shift, scatter = self.ratio.at(params)
            centre, spread = centre + shift, spread + scatter
        return centre, spread

    def reach(self, step: Array, params: float | None) -> Array:
        """Log of how far runs lie outside what was fitted, in length and in size together: (M,)."""
        return self.longer(step) + self.larger(params)

    def longer(self, step: Array) -> Array:
        """Log of updates over those of the longest curve, 0 within it: (M,)."""
        return np.maximum(np.log(np.asarray(step) / self.covered.updates), 0.0)

    def larger(self, params: float | None) -> float:
        """Log of a size over that of the largest model, 0 below it."""
        if not params or not self.covered.params:
            return 0.0
        return max(float(np.log(params / max(self.covered.params))), 0.0)

    def floor(self, step: Array, params: float | None) -> Array:
        """Half-width (M,) in log loss at 90% below which what was held out forbids to go: errors at the ends of longer
        runs and of larger models, grown (or shrunk) with the log of how much longer and larger.
        """
        longer, larger = (
            [(h.end / far) ** 2 for h in self.backtest if (far := getattr(h, way)) > TESTED]
            for way in ("longer", "larger")
        )
        by_length = float(np.sqrt(np.mean(longer))) if longer else UNTESTED
        by_size = float(np.sqrt(np.mean(larger))) if larger else 0.0
        return np.hypot(by_length * self.longer(step), by_size * self.larger(params))

    @property
    def calibration(self) -> float:
        """Return by how much the spread was too small (or large) for what was held out."""
        return calibration(((h.cut, h.rms / h.spread) for h in self.backtest), widest=WIDEST_BAND)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the band: whole runs are what varies."""
        return float(max(self.data.curves, 4))

    def profile(self, name: str, points: int = 11) -> dict[str, Array]:
        """The main law's objective along one of its parameters, the others estimated anew at each value.

        Returns arrays `value` (points,) over three standard errors to each side, and `rise` (points,), twice the rise
        of the objective: below 2.7 lies the 90% interval. `name` is one of `main.names`; a loaded fit has no curves.
        """
        from proxytrain.fit.curves.estimate import profile
        from proxytrain.fit.curves.fit import data_of

        if name not in self.main.names:
            raise RequestError(f"name={name!r}: allowed are {', '.join(self.main.names)}")
        if not self.curves:
            raise RequestError("profile: this fit was loaded from a file and has no curves; fit them again")
        at = self.main.names.index(name)
        error = float(np.sqrt(self.main.covariance[at, at]))
        value = self.main.theta[at] + error * np.linspace(-3, 3, points)
        data = data_of(self.curves, self.covered.scaling, self.covered.peak)
        return {"value": value, "rise": profile(self.main, data, name, value)}

    def best_decay(
        self, updates: int, params: float | None = None, *, warmup: int = 0, shape: str = "linear", end: float = 0.0
    ) -> Decay:
        """The share of a run of `updates` that should decay, for warm-up, hold and one decay to `end` x the peak.

        `shape` is linear, sqrt (1 - sqrt) or cosine. Raises a RequestError for lengths and shapes that cannot be.
        """
        if shape not in SHAPES:
            raise RequestError(f"shape={shape!r}: allowed are {', '.join(SHAPES)}")
        if isinstance(updates, bool) or not (isinstance(updates, numbers.Real) and float(updates).is_integer()):
            raise RequestError(f"updates={updates!r}: must be a whole number of updates")
        updates = int(updates)
        if not 0 <= warmup < updates:
            raise RequestError(f"warmup={warmup}: must be from 0 to below updates={updates}")
        if not 0 <= end < 1:
            raise RequestError(f"end={end}: must be 0 or more and below 1")
        self._judge(updates, params, self.covered.peak)
        shares = np.unique(np.r_[0.02, 0.05, np.linspace(0.1, 1.0, 19)]) * (1 - warmup / updates)
        last = np.array([updates])
        rows = []
        for share in shares:
            lr = self.covered.peak * hold_and_decay(updates, warmup, max(round(share * updates), 1), shape, end)
            scale = (lr.max() / self.covered.peak) ** self.covered.scaling
            history = History.of(lr, last, float(scale))
            views = [m.log_loss(history, np.log(params / m.reference) if params else 0.0) for m in self.members]
            rows.append([(float(v[0]), g[0]) for v, g in views])
        centre = np.array([sum(w * v for w, (v, _) in zip(self.weights, row)) for row in rows])
        best = int(np.argmin(centre))
        error = []
        for row in rows:
            steps = [g - b for (_, g), (_, b) in zip(row, rows[best])]
            error.append(sum(w * float(d @ m.covariance @ d) for w, m, d in zip(self.weights, self.members, steps)))
        as_good = shares[centre - centre[best] <= 1.645 * np.sqrt(error) + 1e-4]
        shift = self.ratio.at(params)[0] if self.ratio else 0.0
        return Decay(shares, np.exp(centre + shift), float(shares[best]), (float(as_good.min()), float(as_good.max())))

    def summary(self) -> list[str]:
        """Lines for a person."""
        from proxytrain.fit.curves.words import summary

        return summary(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit as JSON: under a temporary name, synced, then renamed."""
        from proxytrain.fit.core.document import save_fit
        from proxytrain.fit.curves.saving import document_of

        save_fit(path, document_of(self))

    def _judge(self, updates: int, params: float | None, peak: float) -> str:
        sizes = self.covered.params
        if params is not None and not (isinstance(params, (int, float, np.number)) and params >= 1e3):
            raise RequestError(f"params={params!r}: must be a number of parameters, at least 1000")
        if len(sizes) > 1 and params is None:
            raise RequestError(
                f"params: needed, since the curves have {len(sizes)} sizes from {sizes[0]:.3g} to {sizes[-1]:.3g}"
            )
        if params and len(sizes) < 3 and (not sizes or min(abs(np.log(params / s)) for s in sizes) > 0.01):
            has = " and ".join(f"{s:.4g}" for s in sizes) or "none (Curve.params)"
            raise Refusal(
                f"params={params:.4g}: the curves have {has}; other sizes need curves of at least three sizes, such as "
                "halves and quarters of the largest"
            )
        far = float(self.reach(np.array([updates]), params)[0])
        seen = max([h.reach for h in self.backtest], default=0.0)
        allowed = max(EXTRAPOLATION_LIMIT * seen, LEAST_REACH)
        notes = []
        if far > allowed and not self.allow_extrapolation:
            raise beyond_backtest(
                f"updates={updates}" + (f" params={params:.4g}" if params else ""),
                float(np.exp(far)),
                beyond="the curves in length and size",
                tested=float(np.exp(seen)),
                supported=float(np.exp(allowed)),
                add="curves of longer or larger runs",
            )
        if far > allowed:
            notes.append(
                f"EXTRAPOLATION {np.exp(far):.3g} times beyond the curves; the backtest supports {np.exp(allowed):.3g}"
            )
        if self.covered.scaling == 0 and not min(self.covered.peaks) / 1.3 <= peak <= max(self.covered.peaks) * 1.3:
            notes.append(
                f"peak learning rate {peak:.3g} is not among those fitted ({_span(self.covered.peaks)}); it is taken "
                "to be as well tuned as they were"
            )
        return "; ".join(notes)

    @property
    def _unit(self) -> float:
        """The peak, where rates can be given as they are; else 1."""
        return self.covered.peak if len(set(self.covered.peaks)) == 1 or self.covered.scaling == 1 else 1.0

    @property
    def _natural_names(self) -> list[str]:
        return list(natural_names(self.main))


SHAPES = {
    "linear": lambda x: 1.0 - x,
    "sqrt": lambda x: 1.0 - np.sqrt(x),
    "cosine": lambda x: 0.5 + 0.5 * np.cos(np.pi * x),
}
_PUBLISHED = {"log_rate": "C", "s": "beta", "log_C": "C", "log_forget": "lambda"}


def hold_and_decay(updates: int, warmup: int, decay: int, shape: str, end: float) -> Array:
    """Relative rates (updates,): a linear rise, a constant, and a decay over the last `decay` updates."""
    s = np.arange(1, updates + 1)
    rise = np.minimum(1.0, s / warmup) if warmup else np.ones(updates)
    x = np.clip((s - (updates - decay)) / decay, 0.0, 1.0)
    return rise * (end + (1.0 - end) * SHAPES[shape](x))


def natural_names(member: Estimate) -> tuple[str, ...]:
    """Names of `natural`'s values, as in the law's formula."""
    return tuple(_PUBLISHED.get(n, "C" if n == "B" and member.law.name == "annealing" else n) for n in member.names)


def natural(member: Estimate, theta: Array, unit: float) -> Array:
    """Parameters as in the law's formula, with rates in units of `unit` (the peak: absolute rates)."""
    t = dict(zip(member.names, theta))
    out = dict(t)
    q, alpha = t.get("q", 1.0), t["alpha"]
    joint = "a1" in t
    done = (member.progress * unit) ** q
    out["A"] = t["A"] * done**alpha
    if "log_forget" in t:
        out["log_forget"] = 1.0 - np.exp(t["log_forget"])
        out["B"] = t["B"] * np.exp(t["log_forget"]) / unit
    elif "log_C" in t:
        out["log_C"] = np.exp(t["log_C"]) * unit ** (t["gamma"] - 1.0)
        out["B"] = t["B"] / unit
    else:
        out["log_rate"] = np.exp(t["log_rate"]) * t["s"] / unit
        out["s"] = 1.0 / t["s"]
        out["B"] = t["B"] / t["s"]
    out["B"] *= done ** t.get("fade", 0.0)
    if joint:
        out["a"] = t["a"] * member.reference ** t["a1"]
        out["A"] *= member.reference ** t["a2"]
        out["B"] *= member.reference ** t["a3"]
    return np.array([out[n] for n in member.names])


def _schedule(lr: Any) -> Array:
    try:
        if np.iscomplexobj(lr):
            raise TypeError("numpy would drop the imaginary part")
        lr = np.asarray(lr, dtype=float)
    except (TypeError, ValueError):
        raise RequestError("lr: must be numbers, one per update") from None
    if lr.ndim != 1 or not len(lr) or not np.isfinite(lr).all() or (lr < 0).any() or not lr.max() > 0:
        raise RequestError("lr: one finite learning rate an update is needed, 0 or more and not all 0")
    return lr


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
