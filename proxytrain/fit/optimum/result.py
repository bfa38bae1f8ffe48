"""Laws of the optimum, what they predict, and how sure that is."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.core.extrapolation import EXTRAPOLATION_LIMIT, beyond_backtest
from proxytrain.fit.core.level import checked_level
from proxytrain.fit.tables.units import RANGES

LEAST_SUPPORTED = 1.5  # a gap that is predicted whatever could be held out


@dataclass(frozen=True)
class OptimumLaw:
    """log optimum = c0 + sum of exponent x (log axis - centre), with the covariance (p, p) of the coefficients.

    `shape` (p,) is half of what a skewed valley changes, `scatter` the SD of single optima around the law.
    """

    centre: Mapping[str, float]
    coefficients: tuple[float, ...]
    covariance: Array
    shape: Array
    scatter: float
    freedom: int

    def __post_init__(self) -> None:
        p = len(self.coefficients)
        if (len(self.centre) + 1, self.covariance.shape, self.shape.shape) != (p, (p, p), (p,)):
            raise ValueError(f"a law of {p} coefficients, covariance {self.covariance.shape}, shape {self.shape.shape}")

    @property
    def exponents(self) -> dict[str, float]:
        return dict(zip(self.centre, self.coefficients[1:]))

    @property
    def stderr(self) -> dict[str, float]:
        """Of the exponents."""
        return dict(zip(self.centre, np.sqrt(np.diag(self.covariance) + self.shape**2)[1:].tolist()))

    @property
    def factor(self) -> float:
        """c of c N^a D^b."""
        return float(
            np.exp(self.coefficients[0] - sum(a * m for a, m in zip(self.coefficients[1:], self.centre.values())))
        )

    def at(self, place: Mapping[str, float]) -> tuple[float, float]:
        """Log optimum of a new cell, and its variance."""
        z = np.r_[1.0, [np.log(place[c]) - m for c, m in self.centre.items()]]
        centre = float(z @ np.array(self.coefficients))
        return centre, float(z @ self.covariance @ z + (z @ self.shape) ** 2 + self.scatter**2)


@dataclass(frozen=True)
class HeldOutCell:
    """One cell, predicted from smaller ones: `off` is log(predicted / own optimum), `regret` the log loss it costs."""

    cells: int
    about: Mapping[str, float]
    gap: float
    off: tuple[float, ...]
    regret: float


@dataclass(frozen=True)
class Optimum:
    """Predicted optimum of one model; `regret` is the expected loss (log) of training at it instead of the true one."""

    lr: float
    lr_low: float
    lr_high: float
    batch_tokens: float | None
    batch_low: float | None
    batch_high: float | None
    regret: float
    gap: float
    level: float
    note: str


@dataclass(frozen=True)
class PowerSchedule:
    """Keys of `schedule=power_published`; the exponent of the batch, which its law takes to be 1 (None: not known)."""

    amplitude: float
    exponent: float
    exponent_error: float
    batch_exponent: float | None


@dataclass(frozen=True)
class OptimumFit:
    """Laws of the optimal learning rate ("lr") and, where grids had batches, batch ("batch_tokens").

    `about` maps params and tokens to the (K,) cells that were fitted, `optimum` their own optima, `curvature` (K, k, k)
    that of log loss there; `noise` is the SD of one run around the shape.
    """

    laws: Mapping[str, OptimumLaw]
    about: Mapping[str, Array]
    optimum: Mapping[str, Array]
    curvature: Array
    noise: float
    backtest: tuple[HeldOutCell, ...]
    level: float
    allow_extrapolation: bool
    warnings: list[str]
    runs: int
    source: str

    def predict(
        self, params: float, tokens: float, batch_tokens: float | None = None, level: float | None = None
    ) -> Optimum:
        """Optimal learning rate and batch of a run; at `batch_tokens`, where given, the best rate for that batch.

        Raises
        ------
        RequestError
            A value cannot be, or batch_tokens is needed and missing.
        Refusal
            It lies farther beyond the cells than their backtest supports.
        """
        level = checked_level(self.level if level is None else level)
        place = {"params": params, "tokens": tokens, "batch_tokens": batch_tokens}
        for name, value in place.items():
            low, high, meaning = RANGES[name]
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if value is not None and not (number and max(low, np.nextafter(0, 1)) <= value < high):
                raise RequestError(f"{name}={value!r}: must be {meaning}")
        params, tokens = float(params), float(tokens)
        needed = {c for law in self.laws.values() for c in law.centre}
        if "batch_tokens" in needed and batch_tokens is None:
            raise RequestError("batch_tokens=null: these grids give the best rate at a batch; say which")
        gap, note = self._reach(params, tokens)
        known = {c: float(v) for c, v in place.items() if v is not None}
        found = {name: law.at(known) for name, law in self.laws.items()}
        steep = self.curvature[int(np.argmin(np.abs(np.log(self.about["tokens"] / tokens))))]
        centre = np.array([v for v, _ in found.values()])
        covariance = np.diag([v for _, v in found.values()])
        if len(centre) == 2 and batch_tokens is not None:  # along the valley at the batch that is given
            slope = -steep[0, 1] / steep[0, 0]
            moved = float(np.log(batch_tokens) - centre[1])
            centre = np.array([centre[0] + slope * moved, np.log(batch_tokens)])
            covariance = np.diag([covariance[0, 0] + slope**2 * covariance[1, 1], 0.0])
        from scipy.stats import t as student

        freedom = min(law.freedom for law in self.laws.values())
        half = float(student.ppf(0.5 + level / 2, freedom)) * np.sqrt(np.diag(covariance))
        value, low, high = np.exp(centre), np.exp(centre - half), np.exp(centre + half)
        free = len(centre) == 2 and batch_tokens is None
        return Optimum(
            lr=float(value[0]),
            lr_low=float(low[0]),
            lr_high=float(high[0]),
            batch_tokens=float(value[1]) if free else batch_tokens,
            batch_low=float(low[1]) if free else None,
            batch_high=float(high[1]) if free else None,
            regret=regret(steep, covariance),
            gap=gap,
            level=level,
            note=note,
        )

    def _reach(self, params: float, tokens: float) -> tuple[float, str]:
        """Gap to the largest cell, and a label where it is beyond what was held out."""
        compute = self.about["params"] * self.about["tokens"]
        gap = float(params * tokens / compute.max())
        far = max(gap, float(params / self.about["params"].max()), float(tokens / self.about["tokens"].max()))
        for c, value in (("params", params), ("tokens", tokens)):
            if c in self._axes or self._along(params, tokens):
                continue
            near = self.about[c]
            raise Refusal(
                f"{c}={value:.4g}: the cells that bracket an optimum have {c} from {near.min():.4g} to "
                f"{near.max():.4g}, alone or in step with the other, and no exponent of it is known; add grids of "
                f"learning rates at other {c}"
            )
        seen = max((h.gap for h in self.backtest), default=1.0)
        supported = max(seen**EXTRAPOLATION_LIMIT, LEAST_SUPPORTED)
        if far <= supported:
            return gap, ""
        if self.allow_extrapolation:
            return gap, f"EXTRAPOLATED beyond what was held out (up to {seen:.3g}x)"
        raise beyond_backtest(
            f"params={params:.4g} tokens={tokens:.4g}",
            far,
            beyond="the largest grid",
            tested=seen,
            supported=supported,
            add="a larger grid of learning rates",
        )

    @property
    def _axes(self) -> set[str]:
        return {c for law in self.laws.values() for c in law.centre}

    def _along(self, params: float, tokens: float) -> bool:
        """Whether a model lies on the line (or at the one size or length) on which all cells lie."""
        n, d = np.log(self.about["params"]), np.log(self.about["tokens"])
        if not np.ptp(n) > 0:
            return bool(abs(np.log(params) - n.mean()) < np.log(1.5))
        slope = float(np.polyfit(n, d, 1)[0])
        expected = d.mean() + slope * (np.log(params) - n.mean())
        return bool(abs(np.log(tokens) - expected) < np.log(1.5))

    def power_schedule(self) -> PowerSchedule | None:
        """The power schedule that follows these optima (2408.13359); None where batch or length is not known.

        Its law is lr = beta a tokens^b with beta the batch in sequences of 4096 tokens, so the best rate must go with
        the batch itself: `batch_exponent` (1) tells, where grids had several batches.
        """
        law = self.laws["lr"]
        if "batch_tokens" not in self.about or "tokens" not in law.centre:
            return None
        b = law.exponents["tokens"]
        middle = {c: float(np.exp(np.log(v).mean())) for c, v in self.about.items()}
        lr = np.exp(law.at(middle)[0])
        return PowerSchedule(
            amplitude=float(lr / (middle["batch_tokens"] / 4096) / middle["tokens"] ** b),
            exponent=b,
            exponent_error=law.stderr["tokens"],
            batch_exponent=law.exponents.get("batch_tokens"),
        )

    def summary(self) -> list[str]:
        """Short lines for people."""
        units = {"lr": "learning rate", "batch_tokens": "batch (tokens)"}
        lines = [f"optimum of {' and '.join(units[n] for n in self.laws)} from {self.runs} runs, {len(self)} grids"]
        for name, law in self.laws.items():
            powers = " ".join(f"{c}^({v:+.3f} ± {law.stderr[c]:.3f})" for c, v in law.exponents.items())
            lines.append(
                f"  {units[name]} = {law.factor:.4g} {powers}".rstrip()
                + f"; single optima scatter by {100 * law.scatter:.0f}% around it"
            )
        power = self.power_schedule()
        if power:
            known = power.batch_exponent
            lines.append(
                f"  power schedule: schedule.exponent={power.exponent:.3f} (± {power.exponent_error:.3f}) "
                f"schedule.amplitude={power.amplitude:.3g}"
                + (f"; it takes rates to go with the batch, here with batch^{known:.2f}" if known else "")
            )
        if self.backtest:
            worst = max(self.backtest, key=lambda h: h.regret)
            mean = float(np.mean([h.regret for h in self.backtest]))
            lines.append(
                f"  larger grids predicted from smaller ones ({len(self.backtest)} times, up to "
                f"{max(h.gap for h in self.backtest):.3g}x): loss {100 * mean:.3f}% above their own optimum on "
                f"average, {100 * worst.regret:.3f}% at most"
            )
        else:
            lines.append("  too few grids to hold any out")
        return lines + [f"  warning: {w}" for w in self.warnings]

    def __len__(self) -> int:
        return len(self.about["params"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit as JSON: under a temporary name, synced, then renamed."""
        from proxytrain.fit.core.document import save_fit
        from proxytrain.fit.optimum.saving import document_of

        save_fit(path, document_of(self))


def regret(curvature: Array, covariance: Array) -> float:
    """Expected log loss above the optimum, of a point that scatters around it by `covariance` (k, k)."""
    return float(np.trace(curvature @ covariance)) / 2
