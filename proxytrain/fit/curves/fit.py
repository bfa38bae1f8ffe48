"""`fit_curves`: loss curves in, laws of curves with backtest and bands out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.core.combine import combine
from proxytrain.fit.core.extrapolation import checked_permission
from proxytrain.fit.core.level import checked_level
from proxytrain.fit.core.steps import Progress, steps
from proxytrain.fit.core.versions import versions
from proxytrain.fit.curves.backtest import CurveCut, block_errors, cuts, later_rows, part, schedules
from proxytrain.fit.curves.cleaning import cleaned, outliers, refuse_rise_with_size
from proxytrain.fit.curves.curve import Curve, Observed, own_from, quieted
from proxytrain.fit.curves.data import CurveData
from proxytrain.fit.curves.estimate import Data, Estimate, estimate
from proxytrain.fit.curves.jumps import jump
from proxytrain.fit.curves.laws import AUTO_CURVE_LAWS, CURVE_LAWS, CurveLaw, get_curve_law
from proxytrain.fit.curves.ratio import fit_ratio
from proxytrain.fit.curves.result import Covered, CurveFit, HeldOutCurve

LEAST_ROWS = 5  # losses of a curve after warm-up
SCALINGS = (0.0, 0.5, 1.0)  # r that is tried where one size was trained at several peaks under one schedule


def fit_curves(
    curves: Sequence[Curve] | str | os.PathLike[str],
    law: str = "auto",
    *,
    level: float = 0.9,
    allow_extrapolation: bool = False,
    columns: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> CurveFit:
    """Fit laws of whole loss curves: what a schedule does to the loss, over training and over size.

    Parameters
    ----------
    curves : sequence of Curve, or path
        Curves under at least two schedules that part after warm-up; of one size, or of several with `params`. A path
        is a folder with one CSV a run (`step`, `lr`, `loss`) and an `index.csv` (`file`, `params`, `tokens_per_step`).
    law : str
        "progress", "kernel", "multi_power", "annealing", or "auto": the first three, weighed by their backtests.
    level : float
        Of bands and intervals.
    allow_extrapolation : bool
        Predict beyond what the backtest supports too, and say so, instead of refusing.
    columns : mapping of str to str, optional
        Of a folder: our name to the files' name, of step (or tokens), lr, loss, val_loss, params, tokens_per_step and
        file.
    progress : callable, optional
        Called with the share that is done and what comes next, for who waits.

    Returns
    -------
    CurveFit
        `predict(lr=..., params=...)` gives the curve of another schedule or size with its band.

    Raises
    ------
    RequestError
        A curve or an option cannot be: the line names it.
    Refusal
        The curves do not identify a law: which ones are missing.

    Sources: arXiv 2408.11029 (annealing), 2503.12811 (multi-power), 2509.19189 (kernel).
    """
    warnings: list[str] = []
    if isinstance(curves, (str, os.PathLike)):
        from proxytrain.fit.curves.reading import read_curves

        curves, warnings = read_curves(curves, columns)
    elif columns:
        raise RequestError("fit.columns: the curves are not read from files. Leave it out.")
    laws = [CURVE_LAWS[n] for n in AUTO_CURVE_LAWS] if law == "auto" else [get_curve_law(law)]
    checked_level(level)
    checked_permission(allow_extrapolation)
    curves = list(curves)
    refuse_few(curves)
    clean = cleaned(curves)
    refuse_unfit(clean.curves, clean.notes)
    refuse_rise_with_size(clean.curves)
    fit = _fitted(quieted(clean.curves), laws, level, [*warnings, *clean.notes], progress)
    data = replace(fit.data, unsure=clean.unsure)
    return replace(fit, law=law, data=data, allow_extrapolation=allow_extrapolation)


def _fitted(
    curves: Sequence[Curve], laws: Sequence[CurveLaw], level: float, warnings: list[str], progress: Progress | None
) -> CurveFit:
    """Return the fit of curves that were checked and cleaned."""
    held_out = list(cuts(curves))
    several = several_peaks(curves)
    tell = steps(progress, len(laws) * ((len(SCALINGS) if several else 1) + len(held_out)))
    peaks = [float(c.lr.max()) for c in curves]
    peak = float(np.exp(np.mean(np.log(peaks))))
    members, scaling = _estimated(curves, laws, peak, SCALINGS if several else (0.0,), tell)
    if not several and max(peaks) > 1.01 * min(peaks):
        warnings.append(
            f"peak learning rates from {min(peaks):.3g} to {max(peaks):.3g} go with size or schedule: rates count in "
            "units of each run's peak, taken to be equally well tuned"
        )
    sizes = tuple(sorted({float(c.params) for c in curves if c.params}))
    covered = Covered(max(int(c.step[-1]) for c in curves), sizes, tuple(sorted(set(peaks))), peak, scaling)
    held, weights = _backtest(held_out, laws, covered, level, tell)
    ratio = fit_ratio(curves)
    if len(sizes) == 2:
        warnings.append("two sizes: the exponent of params rests on its prior; other sizes are refused")
    for member in members:
        if member.at_bound:
            warnings.append(f"{member.law.name}: {', '.join(member.at_bound)} ended at a bound")
    main = members[int(np.argmax(weights))]
    warnings += outliers([c.name for c in curves], main.residuals)
    batches = {c.tokens_per_step for c in curves if c.tokens_per_step}
    data = CurveData(
        curves=len(curves),
        names=[c.name for c in curves],
        schedules=len(schedules(curves)),
        hash=_hash(curves),
        tokens_per_step=batches.pop() if batches else None,
    )
    return CurveFit(
        law="",
        members=tuple(members),
        weights=weights,
        covered=covered,
        backtest=held,
        ratio=ratio,
        warnings=warnings,
        data=data,
        versions=versions(),
        level=level,
        curves=tuple(curves),
    )


def _estimated(
    curves: Sequence[Curve],
    laws: Sequence[CurveLaw],
    peak: float,
    scalings: Sequence[float],
    tell: Callable[[str], None],
) -> tuple[list[Estimate], float]:
    """Return the laws, estimated, with the exponent of the peak among `scalings` that describes the curves best."""
    tried: dict[float, list[Estimate]] = {}
    for r in scalings:
        tried[r] = []
        for law in laws:
            tell(f"{law.name}, {len(curves)} curves")
            tried[r].append(estimate(law, data_of(curves, r, peak)))
    best = min(tried, key=lambda r: min(m.noise for m in tried[r]))
    return tried[best], best


def data_of(curves: Sequence[Curve], r: float, peak: float) -> Data:
    return Data.of(curves, r, peak, [Observed.of(c, own) for c, own in zip(curves, own_from(curves))])


def refuse_few(curves: Sequence[Curve]) -> None:
    """Refuse what is no curve, and curves with too few losses."""
    if not curves:
        raise RequestError("curves: none given")
    for i, c in enumerate(curves):
        if not isinstance(c, Curve):
            raise RequestError(f"curves[{i}]: must be a Curve, not {type(c).__name__}")
        if (c.step > c.warmup).sum() < LEAST_ROWS:
            raise Refusal(
                f"{c.name}: {len(c.step)} losses, the last after update {c.step[-1]}; warm-up ends at {c.warmup}; "
                f"a curve needs at least {LEAST_ROWS} losses after it"
            )


def refuse_unfit(curves: Sequence[Curve], notes: Sequence[str] = ()) -> None:
    """Refuse curves that contradict each other as wrong requests, and curves that do not identify a law."""
    sized = [c for c in curves if c.params]
    if sized and len(sized) < len(curves):
        missing = next(c.name for c in curves if not c.params)
        raise RequestError(f"{missing}: no params, and other curves have them; give all or none")
    batches = sorted({float(c.tokens_per_step) for c in curves if c.tokens_per_step})
    if len(batches) > 1:
        raise RequestError(
            f"tokens_per_step: {', '.join(f'{b:g}' for b in batches)} in one fit; progress is counted in updates, so "
            "fit curves of one batch size together"
        )
    found = [j for j in map(jump, curves) if j]
    if found:
        worst = max(found, key=lambda j: j.excess)
        raise Refusal(
            f"{len(found)} of {len(curves)} curves have a jump that no law describes, the largest {worst.curve}: its "
            f"loss falls {100 * worst.excess:.1f}% more between updates {worst.start} and {worst.end} than before "
            "at the same learning rate (a capability that appears); larger or longer runs may have more of them. Use a "
            "model or text without it (token shift, shuffled lines), or fit only the runs and the stretch after it"
            + _hint_on_rates(next(c for c in curves if c.name == worst.curve))
        )
    if not part(curves):
        gone = [n.removeprefix("left out ").split(":")[0] for n in notes if n.startswith("left out")]
        left_out = f"left out {', '.join(gone[:6])}{', ...' if len(gone) > 6 else ''}; " if gone else ""
        hints = "".join(sorted({_hint_on_rates(c) for c in curves}))
        raise Refusal(
            f"{left_out}{len(curves)} curve{'s' * (len(curves) > 1)} under one schedule: what annealing does cannot be "
            "told from progress; add a run whose learning rate parts from it after warm-up, such as a constant rate "
            f"beside a decay{hints}"
        )


def _hint_on_rates(curve: Curve) -> str:
    """Return what may be wrong with a rate that is constant to the end."""
    if np.ptp(curve.lr[curve.warmup :]) > 0:
        return ""
    return ". Where the rate did fall, lr may be the base rate: log the scheduled one"


def several_peaks(curves: Sequence[Curve]) -> bool:
    """Whether some size was trained under one schedule at several peaks, so that their effect can be told."""
    for group in schedules(curves):
        by_size: dict[float | None, list[float]] = {}
        for i in group:
            by_size.setdefault(curves[i].params, []).append(float(curves[i].lr.max()))
        if any(max(p) > 1.2 * min(p) for p in by_size.values()):
            return True
    return False


def _backtest(
    held_out: Sequence[CurveCut], laws: Sequence[CurveLaw], covered: Covered, level: float, tell: Callable[[str], None]
) -> tuple[tuple[HeldOutCurve, ...], tuple[float, ...]]:
    """Errors on what was held out, by the equal mixture of the laws, and the weights that the errors of each give."""
    rows: list[HeldOutCurve] = []
    outcomes: list[tuple[dict[str, Array], Array, Array]] = []
    for cut in held_out:
        fitted = []
        for item in laws:
            tell(f"{item.name}, backtest on {cut.name}")
            fitted.append(estimate(item, data_of(cut.fitted, covered.scaling, covered.peak)))
        members = tuple(fitted)
        seen = replace(
            covered,
            updates=max(int(c.step[-1]) for c in cut.fitted),
            params=tuple(sorted({float(c.params) for c in cut.fitted if c.params})),
        )
        equal = (1.0 / len(laws),) * len(laws)
        view = CurveFit("", members, equal, seen, (), None, [], CurveData(curves=len(cut.fitted), names=[]), {})
        errors: dict[str, list[Array]] = {}
        for curve, after in zip(cut.held, cut.after):
            step, loss = later_rows(curve, after)
            at = np.unique(np.linspace(step[0], step[-1], 60).astype(int))
            centre, variance = view.outlook(curve.lr, at, curve.params)
            rows.append(
                _held(view, cut, curve, block_errors(step, loss, at, np.exp(centre)), at, centre, variance, level)
            )
            for i, member in enumerate(members):
                alone = tuple(float(i == j) for j in range(len(laws)))
                only = np.exp(replace(view, weights=alone).outlook(curve.lr, at, curve.params)[0])
                errors.setdefault(member.law.name, []).append(block_errors(step, loss, at, only))
        cells = sum(len(e) for e in errors[laws[0].name])
        at = np.arange(cells) + 1000 * len(outcomes)
        outcomes.append(({n: np.concatenate(e) for n, e in errors.items()}, at, np.ones(cells, dtype=bool)))
    return tuple(rows), combine([item.name for item in laws], outcomes)


def _held(
    view: CurveFit,
    cut: CurveCut,
    curve: Curve,
    error: Array,
    at: Array,
    centre: Array,
    variance: Array,
    level: float,
) -> HeldOutCurve:
    """One curve predicted without it: its end is the mean of its last stretch."""
    from scipy.stats import t as student

    half = float(student.ppf(0.5 + level / 2, view.freedom)) * float(np.sqrt(variance[-1]))
    end = float(centre[at >= at[-1] - (at[-1] - at[0]) / len(error)].mean())
    return HeldOutCurve(
        cut=cut.name,
        curve=curve.name,
        updates=curve.updates,
        params=curve.params,
        loss=float(np.exp(end - error[-1])),
        prediction=float(np.exp(end)),
        low=float(np.exp(end - half)),
        high=float(np.exp(end + half)),
        error=float(error.mean()),
        rms=float(np.sqrt((error**2).mean())),
        spread=float(np.sqrt(variance.mean())),
        longer=float(view.longer(at[-1:])[0]),
        larger=view.larger(curve.params),
    )


def _hash(curves: Sequence[Curve]) -> str:
    digest = hashlib.sha256()
    for c in curves:
        for values in (c.lr, c.step.astype(float), c.loss, np.array([c.params or 0.0])):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
