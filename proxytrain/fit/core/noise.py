"""How much luck is in one run's loss: seed noise by component, in relative units (standard deviations of log loss).

`order` is shared by runs of one data seed, `init` by the lengths branched from one trunk, `residual` is a run's own,
`misfit` is what the law misses at a cell (params, tokens) beyond that luck. Repeated seeds show the first three without
any law; where there are none they come from the residuals of the fit. Luck may grow or shrink with size and length: the
log of its SD is a line in log params and log tokens, drawn towards a constant, and the components are those of the
largest runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from proxytrain.arrays import Array
from proxytrain.fit.tables.runs import Runs, cell_index, numbered, to_levels

FROM_REPEATS = "repeated seeds"  # a source of noise
ASSUMED = 0.002  # relative seed SD of a tiny GPT's loss where the table cannot say (measured: .02% large, .2% tiny)
PRIOR_DF = 4.0  # how many observations the assumed value counts for
ENOUGH_RESIDUALS = 8  # residuals for a standard deviation
LEAST_SEED_NOISE = 0.0003  # re-runs of well-measured large models differ by 0.015 to 0.03%
SLOPE = 0.15  # prior SD of d log SD / d log size: from tiny (.2%) to large (.02%) GPTs the SD falls by about N^-.2
SLOPES_FROM = 6  # degrees of freedom from which slopes are looked for
MOST_SD_RATIO = 10.0  # the SDs of two runs of a table differ by no more than this factor


@dataclass(frozen=True)
class Noise:
    """Standard deviations of log loss by component; `df` is what they rest on, `source` says how they were found.

    They are those of runs as large and as long as `largest` (log params, log tokens), and of all beyond; `slope` is
    what d log SD / d log params and / d log tokens are below it.
    """

    order: float
    init: float
    residual: float
    misfit: float
    df: float
    source: str
    slope: tuple[float, float] = (0.0, 0.0)
    largest: tuple[float, float] = (0.0, 0.0)

    @property
    def run(self) -> float:
        """Seed SD of one new run."""
        return float(np.sqrt(self.order**2 + self.init**2 + self.residual**2))

    def factor(self, params: Array, tokens: Array) -> Array:
        """Seed SD (n,) at these runs over that of the largest."""
        return _factor(self.slope, self.largest, params, tokens)


def _factor(slope: tuple[float, float], largest: tuple[float, float], params: Array, tokens: Array) -> Array:
    below = [np.minimum(np.log(v) - top, 0.0) for v, top in zip((params, tokens), largest)]
    return np.clip(np.exp(slope[0] * below[0] + slope[1] * below[1]), 1 / MOST_SD_RATIO, MOST_SD_RATIO)


def slopes(variance: Array, df: Array, params: Array, tokens: Array) -> tuple[float, float]:
    """How log SD goes with log params and log tokens, from m sample variances of `df` degrees of freedom each.

    The likelihood of a gamma variable with a normal prior on the slopes (`SLOPE`), by Fisher scoring.
    """
    if df.sum() < SLOPES_FROM or not variance.any():
        return 0.0, 0.0
    x = np.c_[np.ones(len(df)), np.log(params) - np.log(params).mean(), np.log(tokens) - np.log(tokens).mean()]
    beta = np.array([0.5 * np.log((df * variance).sum() / df.sum()), 0.0, 0.0])
    prior = np.diag([1e-9, SLOPE**-2, SLOPE**-2])
    information = (x * (2 * df)[:, None]).T @ x + prior
    for _ in range(30):
        ratio = np.minimum(variance * np.exp(-2 * (x @ beta)), 9.0)  # one outlier says little about a slope
        step = np.linalg.solve(information, x.T @ (df * (ratio - 1.0)) - prior @ beta)
        beta += np.clip(step, -0.3, 0.3)
        if np.abs(step).max() < 1e-6:
            break
    return float(beta[1]), float(beta[2])


def unit_index(runs: Runs) -> Array:
    """Number (n,) of the independent unit of each run: its trunk; else its size and seeds; else itself."""
    size = to_levels(runs.params).astype(str)
    if "trunk" in runs.labels:
        keys = [size, runs.labels["trunk"]]
    elif "init_seed" in runs.labels or "data_seed" in runs.labels:
        keys = [size, *(runs.labels[c] for c in ("init_seed", "data_seed", "schedule") if c in runs.labels)]
    else:
        return np.arange(len(runs))
    return numbered(keys)


def measured(runs: Runs) -> Array:
    """SD (n,) of log loss that a run's `loss_se` adds over the best measured run's: known, and no luck of training.

    Runs that are evaluated on one validation set share its sampling error, which then sets no two of them apart: what
    all have in common is left out.
    """
    if "loss_se" not in runs.numbers:
        return np.zeros(len(runs))
    square = (runs.numbers["loss_se"] / runs.loss) ** 2
    return np.sqrt(square - square.min())


def from_repeats(runs: Runs) -> Noise | None:
    """Seed noise from cells that were run under more than one seed; None where there are none.

    A nested analysis of variance on the deviations from the cell means: data seeds, trunks within them, runs. The
    order component rests on few seeds, so it is drawn towards the trunks' own luck (`PRIOR_DF` observations).
    """
    cell, unit = cell_index(runs), unit_index(runs)
    counts = np.bincount(cell)
    keep = counts[cell] > 1
    if not keep.any():
        return None
    y = np.log(runs.loss)
    deviation = (y - (np.bincount(cell, y) / counts)[cell])[keep]
    largest = (float(np.log(runs.params).max()), float(np.log(runs.tokens).max()))
    first = np.unique(cell[keep], return_index=True)[1]
    squares, df_cell = np.bincount(cell[keep], deviation**2, len(counts))[counts > 1], counts[counts > 1] - 1.0
    slope = slopes(squares / df_cell, df_cell, runs.params[keep][first], runs.tokens[keep][first])
    deviation = deviation / _factor(slope, largest, runs.params[keep], runs.tokens[keep])
    cell, unit = np.unique(cell[keep], return_inverse=True)[1], np.unique(unit[keep], return_inverse=True)[1]
    size = to_levels(runs.params)[keep]
    per_unit = np.bincount(unit)
    unit_mean = np.bincount(unit, deviation) / per_unit
    df_total = len(deviation) - (cell.max() + 1)
    size_of_unit = np.zeros(len(per_unit))
    size_of_unit[unit] = size
    df_units = len(per_unit) - len(np.unique(size))
    length = len(deviation) / len(per_unit)  # runs a unit
    total = float((deviation**2).sum())
    between = float((per_unit * unit_mean**2).sum())
    if length > 1.2 and df_total > df_units > 0:
        within = max(total - between, 0.0) / (df_total - df_units)
        init = max(between / df_units - within, 0.0) / length
    else:
        within, init = total / max(df_total, 1), 0.0
    df = float(df_units if df_units > 0 else df_total)
    pooled = (df * (within + init) + PRIOR_DF * ASSUMED**2) / (df + PRIOR_DF)
    shrink = pooled / max(within + init, 1e-12)
    within, init = (within * shrink, init * shrink) if within + init > 1e-12 else (pooled, 0.0)
    order = _order_variance(runs, keep, unit, unit_mean, within + init) if "data_seed" in runs.labels else 0.0
    a, b, c = (float(np.sqrt(v)) for v in (order, init, within))
    return Noise(a, b, c, 0.0, df + PRIOR_DF, FROM_REPEATS, slope, largest)


def _order_variance(runs: Runs, keep: Array, unit: Array, unit_mean: Array, own: float) -> float:
    """Variance shared by the runs of one data seed; the units' own variance is the prior guess."""
    seed_of_unit = np.empty(len(unit_mean), dtype=object)
    seed_of_unit[unit] = runs.labels["data_seed"][keep]
    seeds, index = np.unique(seed_of_unit.astype(str), return_inverse=True)
    if len(seeds) < 2:
        return own
    count = np.bincount(index)
    mean = np.bincount(index, unit_mean) / count
    between = float((mean**2).sum() / (len(seeds) - 1))
    found = max(between - own / float(count.mean()), 0.0)
    df = len(seeds) - 1
    return (df * found + PRIOR_DF * 0.5 * own) / (df + PRIOR_DF)


def estimate_noise(runs: Runs, residual: Array, free: int, given: float | None = None) -> Noise:
    """Noise of a table from its repeats and from the residuals (n,) of a fit with `free` parameters.

    `given` replaces the seed noise (relative SD of one run, split evenly over the components that exist).
    """
    cell, unit = cell_index(runs), unit_index(runs)
    repeats = from_repeats(runs)
    cells, units = cell.max() + 1, unit.max() + 1
    seeded = "data_seed" in runs.labels
    df_units = max(float(units - free * units / cells), 1.0)  # parameters are spread over the lengths of a unit
    if given is not None:
        order, init, own = given * np.sqrt([1 / 3, 1 / 3, 1 / 3] if seeded else [0, 0, 1])
        noise = Noise(float(order), float(init), float(own), 0.0, df_units + PRIOR_DF, f"given: {given:g}")
    elif repeats is not None:
        noise = repeats
    else:
        return _from_residuals(runs, residual, free, unit, seeded, df_units)
    # what the law misses: cell means differ from it by more than luck
    mean = np.bincount(cell, residual) / np.bincount(cell)
    spread = float((_tamed(mean) ** 2).sum() / max(cells - free, 1))
    runs_of_cell = np.bincount(cell)[cell]
    luck = (
        (noise.init**2 + noise.residual**2)
        * float((noise.factor(runs.params, runs.tokens) ** 2 / runs_of_cell**2).sum())
        / cells
    )
    misfit = float(np.sqrt(max(spread - luck, 0.0)))
    return replace(noise, misfit=misfit, df=min(noise.df, df_units + PRIOR_DF))


def _from_residuals(runs: Runs, residual: Array, free: int, unit: Array, seeded: bool, df_units: float) -> Noise:
    n, units = len(runs), int(unit.max()) + 1
    squares, df = _tamed(residual) ** 2, max(n - free, 1)
    slope, largest = (0.0, 0.0), (float(np.log(runs.params).max()), float(np.log(runs.tokens).max()))
    if n >= 2 * ENOUGH_RESIDUALS:
        slope = slopes(squares * n / df, np.full(n, df / n), runs.params, runs.tokens)
        residual = residual / _factor(slope, largest, runs.params, runs.tokens)
        squares = _tamed(residual) ** 2
    variance = max(float(squares.mean()) * n / df - float((measured(runs) ** 2).mean()), LEAST_SEED_NOISE**2)
    if df <= 3:
        variance = (df * variance + PRIOR_DF * ASSUMED**2) / (df + PRIOR_DF)
    variance = max(variance, LEAST_SEED_NOISE**2)
    init = 0.0
    if n > 1.2 * units:
        mean = np.bincount(unit, residual) / np.bincount(unit)
        init = min(max(float((mean**2).sum()) / df_units - variance * units / n, 0.0), 4 * variance)
    order = init if seeded and init > 0 else (variance if seeded else 0.0)
    source = "residuals of the fit (no repeated seeds)"
    if seeded:
        source += "; luck shared by a data seed assumed as large as a trunk's own"
    return Noise(
        float(np.sqrt(order)), float(np.sqrt(init)), float(np.sqrt(variance)), 0.0, df_units, source, slope, largest
    )


def _tamed(residual: Array) -> Array:
    """Residuals with outliers drawn in to four robust standard deviations."""
    scale = 1.4826 * float(np.median(np.abs(residual)))
    return np.clip(residual, -4 * scale, 4 * scale) if scale > 0 and len(residual) > 8 else residual
