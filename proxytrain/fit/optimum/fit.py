"""`fit_optimum`: runs over learning rates and batches in, laws of the optimum with intervals out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal
from proxytrain.fit.core.extrapolation import checked_permission
from proxytrain.fit.core.level import checked_level
from proxytrain.fit.optimum.cells import Cells, read_cells
from proxytrain.fit.optimum.result import HeldOutCell, OptimumFit, OptimumLaw
from proxytrain.fit.optimum.surface import Surface, surfaces

VARIES = 1.2  # least ratio of largest to smallest of what an exponent is fitted to
COLLINEAR = 0.08  # smallest over largest singular value below which two axes move together
SCATTER = 0.15  # SD of cells' optima around the law, in e-folds: prior scale, and the value where nothing tells
LARGEST_CUTS = 4


def fit_optimum(
    table: Any,
    *,
    level: float = 0.9,
    schedule: str | None = None,
    allow_extrapolation: bool = False,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, Any] | None = None,
    rows: str | None = None,
) -> OptimumFit:
    """Fit how the optimal learning rate (and batch) goes with params and tokens.

    Around the optimum of every (params, tokens) the loss is a quadratic in log lr (and log batch), with one shape for
    all; the optima follow power laws. Where no size was trained at three batches, batch is taken as given, and the law
    is that of the rate at fixed batch; its exponent of tokens is another one (arXiv 2409.19913 against 2503.04715).

    Parameters
    ----------
    table : pandas.DataFrame, mapping of str to array, or path of CSV or Parquet
        Columns `params`, `tokens`, `lr`, `loss`; `batch_tokens`, `schedule` where they differ. Runs whose loss is no
        finite number diverged: they are left out and counted.
    level : float
        Of intervals.
    schedule : str, optional
        Which one, where the table has several; default the most common.
    allow_extrapolation : bool
        Predict beyond three times the largest log-gap held out, and say so, instead of refusing.
    columns, where, rows
        See :class:`proxytrain.FitConfig`.

    Raises
    ------
    RequestError
        The table or an option cannot be: one line that names the column, row and value.
    Refusal
        No cell brackets its optimum, or too few do: which runs are missing.

    Examples
    --------
    >>> n, d, lr = [g.ravel() for g in np.meshgrid([1e6, 4e6, 16e6], [2e7, 8e7], np.geomspace(1e-4, 1e-1, 13))]
    >>> loss = 2 + 0.02 * (np.log(lr) - np.log(30 * n**-0.5)) ** 2
    >>> fit = fit_optimum({"params": n, "tokens": d, "lr": lr, "loss": loss})
    >>> round(fit.laws["lr"].exponents["params"], 2), round(fit.predict(params=16e6, tokens=8e7).lr, 4)
    (-0.5, 0.0075)
    """
    checked_level(level)
    checked_permission(allow_extrapolation)
    cells = read_cells(table, schedule, columns, where, rows)
    axes, warnings = _axes(cells)
    shapes = surfaces(cells, _steepens_with(cells))
    laws = {name: _law(cells, shapes, axes, j) for j, name in enumerate(cells.names)}
    held = tuple(_backtest(cells, axes))
    return OptimumFit(
        laws=laws,
        about=cells.about,
        optimum={name: np.exp(_middle(shapes)[:, j]) for j, name in enumerate(cells.names)},
        curvature=(shapes[0].curvature + shapes[1].curvature) / 2,
        noise=shapes[1].noise,
        backtest=held,
        level=level,
        allow_extrapolation=allow_extrapolation,
        warnings=[*cells.warnings, *warnings],
        runs=cells.runs,
        source=cells.source,
    )


def _axes(cells: Cells) -> tuple[tuple[str, ...], list[str]]:
    """What exponents are fitted to: what varies, and not in step with another.

    Raises a Refusal where there are fewer cells than the law has parameters.
    """
    axes = [c for c, v in cells.about.items() if v.max() > VARIES * v.min()]
    warnings = []
    if len(axes) > 1:
        z = np.log(np.array([cells.about[c] for c in axes]))
        z = z - z.mean(1, keepdims=True)
        if "params" in axes and "tokens" in axes:
            two = np.linalg.svd(z[:2], compute_uv=False)
            if two[-1] < COLLINEAR * two[0]:
                axes.remove("tokens")
                warnings.append("tokens move with params in all cells: one exponent for both, for models on that line")
        z = np.log(np.array([cells.about[c] for c in axes]))
        values = np.linalg.svd(z - z.mean(1, keepdims=True), compute_uv=False)
        if len(axes) > 1 and values[-1] < COLLINEAR * values[0]:
            raise Refusal(
                f"{cells.source}: {' and '.join(axes)} move together in all cells; vary one with the other fixed"
            )
    if axes and len(cells) < len(axes) + 1:
        left = f"; {'; '.join(cells.warnings)}" if cells.warnings else ""
        raise Refusal(
            f"{cells.source}: {len(cells)} cells bracket their optimum, and a law of {' and '.join(axes)} has "
            f"{len(axes) + 1} parameters; add a grid of learning rates at another of them{left}"
        )
    return tuple(axes), warnings


def _steepens_with(cells: Cells) -> Array:
    t = np.log(cells.about["tokens"])
    return t - t.mean()


def _middle(shapes: tuple[Surface, Surface]) -> Array:
    return (shapes[0].optimum + shapes[1].optimum) / 2


def _law(cells: Cells, shapes: tuple[Surface, Surface], axes: tuple[str, ...], j: int) -> OptimumLaw:
    """Power law through the cells' optima: generalised least squares, scatter beyond the runs' noise by REML."""
    at = {c: float(np.log(cells.about[c]).mean()) for c in axes}
    z = np.column_stack([np.ones(len(cells)), *(np.log(cells.about[c]) - at[c] for c in axes)])
    y = _middle(shapes)[:, j]
    error = (shapes[0].covariance[:, j, j] + shapes[1].covariance[:, j, j]) / 2
    freedom = len(cells) - z.shape[1]

    def solved(scatter: float) -> tuple[Array, Array, float]:
        w = 1 / (error + scatter**2)
        information = (z * w[:, None]).T @ z
        beta = np.linalg.solve(information, (z * w[:, None]).T @ y)
        rest = y - z @ beta
        likelihood = 0.5 * (np.log(w).sum() - np.linalg.slogdet(information)[1] - (w * rest**2).sum())
        return beta, np.linalg.inv(information), float(likelihood - 0.5 * (scatter / SCATTER) ** 2)

    tried = np.linspace(0.0, 4 * SCATTER, 121)
    scatter = float(tried[int(np.argmax([solved(s)[2] for s in tried]))]) if freedom else SCATTER
    beta, covariance, _ = solved(scatter)
    halves = [np.linalg.lstsq(z, s.optimum[:, j], rcond=None)[0] for s in shapes]
    return OptimumLaw(
        centre=at,
        coefficients=tuple(beta.tolist()),
        covariance=covariance,
        shape=(halves[1] - halves[0]) / 2,
        scatter=scatter,
        freedom=max(freedom, 2),
    )


def _backtest(cells: Cells, axes: tuple[str, ...]) -> list[HeldOutCell]:
    """Laws of the smaller cells against the optima of larger ones, nested, the largest cells held out first."""
    from proxytrain.fit.optimum.result import regret

    out = []
    order = np.unique(cells.compute)
    for cut in order[: -LARGEST_CUTS - 1 : -1]:
        small = cells.compute < cut * 0.999
        try:
            some = cells.take(small)
            if _axes(some)[0] != axes or small.sum() < len(axes) + 2:
                continue
        except (Refusal, ValueError):
            continue
        shapes = surfaces(some, _steepens_with(some))
        laws = [_law(some, shapes, axes, j) for j in range(len(cells.names))]
        large = cells.take(~small)
        truth = surfaces(large, _steepens_with(large))
        for k in range(len(large)):
            place = {c: float(v[k]) for c, v in large.about.items()}
            off = np.array([law.at(place)[0] for law in laws]) - _middle(truth)[k]
            steep = (truth[0].curvature[k] + truth[1].curvature[k]) / 2
            gap = float(large.compute[k] / some.compute.max())
            out.append(
                HeldOutCell(int(small.sum()), place, gap, tuple(off.tolist()), regret(steep, np.outer(off, off)))
            )
    return out
