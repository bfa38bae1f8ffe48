"""One law of curves on some curves: shapes from a grid, amplitudes by non-negative least squares, then a polish.

Residuals are of log loss, under Huber's loss. Neighbouring rows of a curve err alike, so a row counts for less than
one: by the noise of a row and the number of rows that err together. Weak priors on the shapes decide only where the
curves do not (`Estimate.prior_share`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np

from proxytrain.arrays import Array
from proxytrain.fit.curves.curve import Curve, Observed
from proxytrain.fit.curves.history import History
from proxytrain.fit.curves.laws import ALPHA, FADE, SIZE_SHAPES, CurveLaw, Q, Shape

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

PIECE_NOISE = 0.006  # of log loss, of a piece of curve that errs together: before the residuals tell
LEAST_PIECE_NOISE = 5e-4
HUBER = 1.345
FEW_RUNS = 8  # with as many runs the covariance is taken from how they differ, else from the residuals
POLISHED = 2  # starts


@dataclass(frozen=True)
class Data:
    """What an estimate reads: of each curve its observations, its history, and its size as log(params / reference).

    Curves of one schedule that are observed at the same moments, such as those of seeds and sizes, share one history.
    """

    histories: tuple[History, ...]
    loss: tuple[Array, ...]
    error: tuple[Array, ...]
    size: tuple[float, ...]
    sizes: int
    reference: float  # params; 1 where curves have none
    progress: float  # typical T

    @classmethod
    def of(cls, curves: Sequence[Curve], r: float, peak: float, observed: Sequence[Observed]) -> Data:
        """Of curves whose rates count as (rate / own peak) x (own peak / `peak`)^r."""
        known: dict[tuple[bytes, bytes, float], History] = {}
        histories = []
        for c, o in zip(curves, observed):
            scale = scale_of(c, r, peak)
            key = (c.lr / c.lr.max()).tobytes(), o.step.tobytes(), scale
            histories.append(known[key] if key in known else known.setdefault(key, o.history(c, scale)))
        params = np.array([c.params or 1.0 for c in curves])
        reference = float(np.exp(np.log(params).mean()))
        return cls(
            tuple(histories),
            tuple(o.loss for o in observed),
            tuple(o.error for o in observed),
            tuple(np.log(params / reference).tolist()),
            len(np.unique(params)),
            reference,
            float(np.exp(np.mean([np.log(h.sum.max()) for h in histories]))),
        )


def scale_of(curve: Curve, r: float, peak: float) -> float:
    """The factor that makes a curve's relative rates comparable with those of other peaks."""
    return float((curve.lr.max() / peak) ** r)


@dataclass(frozen=True)
class Estimate:
    """A law with its parameters: theta (p,) in the order of `names`, and their covariance (p, p).

    `noise` is the SD of log loss of a row, `together` the rows that err alike, `luck` the SD between whole runs.
    """

    law: CurveLaw
    names: tuple[str, ...]
    theta: Array
    covariance: Array
    objective: float
    noise: float
    together: float
    luck: float
    prior_share: dict[str, float]
    at_bound: tuple[str, ...]
    reference: float
    progress: float
    residuals: tuple[Array, ...] = ()

    def log_loss(self, history: History, size: float) -> tuple[Array, Array]:
        """Log loss (M,) of a curve of log(params / reference) `size`, and its gradient (M, p)."""
        ((value, gradient),) = evaluate(self.law, self.names, self.theta, [history], [size], self.progress)
        return np.log(value), gradient / value[:, None]


def shapes_of(law: CurveLaw, sizes: int) -> dict[str, Shape]:
    """The shape parameters of a law, those that tie several sizes last."""
    own = {"alpha": ALPHA, **({"q": Q, "fade": FADE} if law.q else {}), **law.shapes}
    return {**own, **SIZE_SHAPES} if sizes > 1 else own


def evaluate(
    law: CurveLaw,
    names: Sequence[str],
    theta: Array,
    histories: Sequence[History],
    sizes: Sequence[float],
    progress: float,
) -> list[tuple[Array, Array]]:
    """Of each curve its loss (M,) and its gradient (M, p) by theta: shapes, then amplitudes (L0 or E and a; A; B)."""
    out = []
    for basis, slopes in features(law, dict(zip(names, theta)), histories, sizes, progress):
        amplitudes = theta[-basis.shape[1] :]
        value = np.maximum(basis @ amplitudes, 1e-3)
        columns = [slopes[n] @ amplitudes if n in slopes else np.zeros(len(value)) for n in names[: -len(amplitudes)]]
        out.append((value, np.column_stack([*columns, basis])))
    return out


Features = tuple[Array, dict[str, Array]]


def features(
    law: CurveLaw, t: dict[str, float], histories: Sequence[History], sizes: Sequence[float], progress: float
) -> list[Features]:
    """Of each curve what the amplitudes multiply, (M, k), and its derivative by each shape parameter, (M, k) each.

    The sums over a schedule are made once for all curves that share its history.
    """
    own, q = np.array([t[n] for n in law.shapes]), t.get("q", 1.0)
    sums = {id(h): (h.progress(q), law.feature(h, own)) for h in {id(h): h for h in histories}.values()}
    return [_features(law, t, *sums[id(h)], size, progress) for h, size in zip(histories, sizes)]


def _features(
    law: CurveLaw,
    t: dict[str, float],
    done_and_slope: tuple[Array, Array],
    v_and_slopes: tuple[Array, Array],
    size: float,
    progress: float,
) -> Features:
    joint = "a1" in t
    (done, done_q), (v, v_own) = done_and_slope, v_and_slopes
    ratio = done / progress ** t.get("q", 1.0)
    power = ratio ** -t["alpha"]
    sign = -1.0 if law.gain else 1.0
    by_a, by_b = (np.exp(-t["a2"] * size), np.exp(-t["a3"] * size)) if joint else (1.0, 1.0)
    by_b = by_b * ratio ** -t.get("fade", 0.0)
    one = np.ones(len(v))
    left = [one, np.exp(-t["a1"] * size) * one] if joint else [one]
    basis = np.column_stack([*left, by_a * power, sign * by_b * v])
    k = basis.shape[1]

    def column(at: int, values: Array) -> Array:
        out = np.zeros_like(basis)
        out[:, at] = values
        return out

    slopes = {"alpha": column(k - 2, -by_a * power * np.log(ratio))}
    if law.q:
        by_q = done_q / done - np.log(progress)
        slopes["q"] = column(k - 2, -by_a * power * t["alpha"] * by_q)
        slopes["q"][:, k - 1] = -basis[:, k - 1] * t["fade"] * by_q
        slopes["fade"] = column(k - 1, -basis[:, k - 1] * np.log(ratio))
    slopes.update({n: column(k - 1, sign * by_b * v_own[:, i]) for i, n in enumerate(law.shapes)})
    if joint:
        slopes["a1"] = column(1, -size * basis[:, 1])
        slopes["a2"] = column(2, -size * basis[:, 2])
        slopes["a3"] = column(3, -size * basis[:, 3])
    return basis, slopes


def estimate(law: CurveLaw, data: Data) -> Estimate:
    """The law's parameters on these curves: two passes, the second with the noise that the first one found."""
    shapes = shapes_of(law, data.sizes)
    amplitudes = ("E", "a", "A", "B") if data.sizes > 1 else ("L0", "A", "B")
    names = (*shapes, *amplitudes)
    y = np.log(np.concatenate(data.loss))
    starts = _starts(law, shapes, data)
    noise, together = PIECE_NOISE, 1.0
    own = np.concatenate(data.error)
    sigma = np.hypot(noise, own)
    best = min((_polish(law, names, shapes, data, y, start, sigma, 2e-3, 15) for start in starts), key=lambda o: o.cost)
    for again in range(3):
        found = _row_noise(_split(_residuals(law, names, best.x, data, y), data), data.error)
        if again and abs(np.log(found[0] / noise) + np.log(found[1] / together) / 2) < 0.1:
            break
        noise, together = found
        sigma = np.hypot(noise * np.sqrt(together), own)
        delta = max(HUBER * noise, LEAST_PIECE_NOISE)
        best = _polish(law, names, shapes, data, y, best.x, sigma, delta, 60)
    residuals = _split(_residuals(law, names, best.x, data, y), data)
    covariance, share = _covariance(best, shapes, data)
    low, high = _bounds(shapes, len(amplitudes))
    stuck = tuple(n for n, x, a, b in zip(names, best.x, low, high) if n in shapes and min(x - a, b - x) < 1e-6)
    return Estimate(
        law, names, best.x, covariance, float(best.cost), noise, together, _luck(residuals, noise, together),
        share, stuck, data.reference, data.progress, tuple(residuals),
    )  # fmt: skip


def profile(member: Estimate, data: Data, name: str, values: Array) -> Array:
    """Twice the rise of the objective (n,) with a parameter held at `values` (n,) and the others estimated again.

    It is chi-squared with one degree of freedom where the law is right, and follows bent valleys (L0 against alpha,
    lambda against C), which standard errors do not.
    """
    shapes = shapes_of(member.law, data.sizes)
    y = np.log(np.concatenate(data.loss))
    sigma, delta = member.noise * np.sqrt(member.together), max(HUBER * member.noise, LEAST_PIECE_NOISE)
    at = member.names.index(name)
    sigma = np.sqrt(sigma**2 + np.concatenate(data.error) ** 2)
    rise = np.empty(len(values))
    for way in (np.argsort(values), np.argsort(-values)):  # outwards from the estimate, each from its neighbour
        start = member.theta
        for i in way:
            if (values[i] - member.theta[at]) * (values[way[-1]] - values[way[0]]) < 0:
                continue
            found = _polish(member.law, member.names, shapes, data, y, start, sigma, delta, 30, (at, float(values[i])))
            rise[i], start = 2.0 * (found.cost - member.objective), found.x
    return np.maximum(rise, 0.0)


def _starts(law: CurveLaw, shapes: dict[str, Shape], data: Data) -> list[Array]:
    """The best points of a grid of shapes, with amplitudes by non-negative least squares."""
    from scipy.optimize import nnls

    y = np.concatenate(data.loss)
    found = []
    for values in product(*(s.starts for s in shapes.values())):
        t = dict(zip(shapes, values))
        basis = np.concatenate([b for b, _ in features(law, t, data.histories, data.size, data.progress)])
        scaled = basis / y[:, None]
        length = np.linalg.norm(scaled, axis=0) + 1e-300
        amplitudes, miss = nnls(scaled / length, np.ones(len(y)))
        amplitudes = np.maximum(amplitudes / length, 0.02 / length * np.sqrt(len(y)))  # a zero never leaves zero
        found.append((miss, np.r_[values, amplitudes]))
    found.sort(key=lambda f: f[0])
    return [x for _, x in found[:POLISHED]]


def _bounds(shapes: dict[str, Shape], amplitudes: int) -> tuple[Array, Array]:
    low = np.r_[[s.low for s in shapes.values()], np.zeros(amplitudes)]
    high = np.r_[[s.high for s in shapes.values()], np.full(amplitudes, np.inf)]
    return low, high


def _polish(
    law: CurveLaw,
    names: Sequence[str],
    shapes: dict[str, Shape],
    data: Data,
    y: Array,
    start: Array,
    sigma: Array,
    delta: float,
    most: int,
    held: tuple[int, float] | None = None,
) -> OptimizeResult:
    from scipy.optimize import least_squares

    k = len(shapes)
    centre = np.array([s.prior[0] for s in shapes.values()])
    width = np.array([s.prior[1] for s in shapes.values()])
    kept: dict[bytes, tuple[Array, Array]] = {}

    def both(x: Array) -> tuple[Array, Array]:
        key = x.tobytes()
        if key not in kept:
            kept.clear()
            parts = evaluate(law, names, x, data.histories, data.size, data.progress)
            value = np.concatenate([v for v, _ in parts])
            gradient = np.concatenate([g for _, g in parts]) / value[:, None]
            rows = np.r_[(np.log(value) - y) / sigma, (x[:k] - centre) / width]
            kept[key] = rows, np.r_[gradient / sigma[:, None], np.eye(k, len(x)) / width[:, None]]
        return kept[key]

    def huber(z: Array) -> Array:
        """Huber's loss for the data, squares for the priors: value and two derivatives by z = (residual / delta)^2."""
        far = z > 1.0
        far[-k:] = False
        root = np.sqrt(np.where(far, z, 1.0))
        return np.array([np.where(far, 2 * root - 1, z), 1 / root, np.where(far, -0.5 / root**3, 0.0)])

    low, high = _bounds(shapes, len(start) - k)
    if held:
        low[held[0]], high[held[0]] = held[1] - 1e-7, held[1] + 1e-7
    inside = np.clip(start, low + 1e-9, high - 1e-9)
    return least_squares(
        lambda x: both(x)[0], inside, lambda x: both(x)[1], (low, high), x_scale="jac", loss=huber,
        f_scale=max(delta / float(np.median(sigma)), 0.1), max_nfev=most, ftol=1e-7, xtol=1e-7,
    )  # fmt: skip


def _residuals(law: CurveLaw, names: Sequence[str], x: Array, data: Data, y: Array) -> Array:
    fitted = evaluate(law, names, x, data.histories, data.size, data.progress)
    return y - np.log(np.concatenate([value for value, _ in fitted]))


def _split(rows: Array, data: Data) -> list[Array]:
    return np.split(rows, np.cumsum([len(x) for x in data.loss])[:-1])


def _row_noise(residuals: Sequence[Array], errors: Sequence[Array]) -> tuple[float, float]:
    """SD of what the law misses in a row, robust, beyond its own error, and how many rows err together in that.

    The latter is the integrated autocorrelation, pooled over curves, of residuals without their white part.
    """
    pooled, own = np.concatenate(residuals), np.concatenate(errors)
    whole = 1.4826 * float(np.median(np.abs(pooled)))
    noise = max(float(np.sqrt(max(whole**2 - np.median(own) ** 2, 0.0))), LEAST_PIECE_NOISE)
    tamed = [np.clip(r, -4 * whole, 4 * whole) for r in residuals]
    white = sum(float(e @ e) for e in errors)
    square = max(sum(float(r @ r) for r in tamed) - white, len(pooled) * LEAST_PIECE_NOISE**2)
    together = 1.0
    for lag in range(1, max(len(r) for r in residuals) // 2):
        shared = min(sum(float(r[lag:] @ r[:-lag]) for r in tamed if len(r) > lag) / square, 1.0)
        if shared <= 0.05:
            break
        together += 2.0 * shared
    return noise, together


def _luck(residuals: Sequence[Array], noise: float, together: float) -> float:
    """SD between runs of the last third's mean residual, beyond what rows that err together explain; .1% at least."""
    ends = np.array([r[-max(len(r) // 3, 1) :].mean() for r in residuals])
    own = noise**2 * np.mean([min(together / max(len(r) // 3, 1), 1.0) for r in residuals])
    runs = len(ends)
    spread = float((ends**2).sum() / max(runs - 2, 1)) if runs > 2 else 0.0
    return float(np.sqrt(max(spread - own, 1e-3**2)))


def _covariance(best, shapes: dict[str, Shape], data: Data) -> tuple[Array, dict[str, float]]:  # type: ignore[no-untyped-def]
    """Covariance (p, p) of theta, and of each shape parameter the share of its precision that its prior gives."""
    k, jacobian = len(shapes), best.jac  # rows already weighed by Huber's loss
    precision = jacobian.T @ jacobian
    scale = 1.0 / np.sqrt(np.diag(precision) + 1e-300)
    inverse = np.linalg.pinv(precision * scale[:, None] * scale, rcond=1e-10, hermitian=True) * scale[:, None] * scale
    share = {n: min(float(inverse[i, i] / s.prior[1] ** 2), 1.0) for i, (n, s) in enumerate(shapes.items())}
    if len(data.loss) < FEW_RUNS:
        return inverse, share
    runs = len(data.loss)
    bounds = np.r_[0, np.cumsum([len(x) for x in data.loss])]
    pulls = np.array([jacobian[a:b].T @ best.fun[a:b] for a, b in pairwise(bounds)])
    middle = pulls.T @ pulls * runs / (runs - 1) + jacobian[-k:].T @ jacobian[-k:]
    robust = inverse @ middle @ inverse
    wider = np.sqrt(np.maximum(np.diag(robust) / np.maximum(np.diag(inverse), 1e-300), 1.0))
    return robust if (wider > 1.0).all() else inverse * np.outer(wider, wider), share
