"""`fit_losses`: a table of final losses in, a fit with predictions, intervals and backtest out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.core.noise import FROM_REPEATS
from proxytrain.fit.core.options import FitConfig
from proxytrain.fit.core.steps import Progress, steps
from proxytrain.fit.core.versions import versions
from proxytrain.fit.losses.backtest import assemble, fit_cuts, replay, splits
from proxytrain.fit.losses.checks import asked_for, best_settings, left_out, refuse_unfit, set_apart
from proxytrain.fit.losses.data import FitData
from proxytrain.fit.losses.frontier import one_variable
from proxytrain.fit.losses.identify import usable, what_is_missing
from proxytrain.fit.losses.laws import AUTO, LAWS, Law, get_law
from proxytrain.fit.losses.nested import drifting_offsets, own_exponents
from proxytrain.fit.losses.predictor import estimate
from proxytrain.fit.losses.result import Fit
from proxytrain.fit.tables.duplicates import once
from proxytrain.fit.tables.runs import SCALE, Runs
from proxytrain.fit.tables.table import read_runs

UNUSUAL = 0.01  # relative seed noise, of which the reader is warned


def fit_losses(
    table: Any,
    law: str = "auto",
    target: Mapping[str, float] | None = None,
    *,
    level: float = 0.9,
    bootstraps: int = 400,
    seed: int = 0,
    delta: float | None = None,
    seed_noise: float | None = None,
    schedule: str | None = None,
    group: str | None = None,
    allow_extrapolation: bool = False,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, Any] | None = None,
    rows: str | None = None,
    outliers: str | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Fit a law of final loss to a table of runs, backtest it, and be ready to predict a larger run.

    Parameters
    ----------
    table : pandas.DataFrame, mapping of str to array, or path of CSV or Parquet
        Columns `params`, `tokens`, `loss` (nats a token), or `flops` for one of the first two; one of the three alone
        for a law in that variable. Optional: `loss_se`, `lr`, `batch_tokens`, `schedule`,
        `init_seed`, `data_seed`, `trunk`, `group`, `weight`, `unique_tokens`. Others are ignored and listed.
    law : str
        "chinchilla", "tied", "params_at_tokens", ... (`proxytrain.fit.LAWS`), or "auto".
    target : mapping of params and tokens (or flops), optional
        The run to predict: `fit.prediction`.
    level, bootstraps, seed, delta, seed_noise, schedule, group, allow_extrapolation, columns, where, rows, outliers
        See :class:`FitConfig`.
    progress : callable, optional
        Called with the share that is done and what comes next, for who waits.

    Raises
    ------
    RequestError
        The table or an option cannot be: one line that names the column, row and value.
    Refusal
        The runs do not identify the law, or cannot answer for the target: which runs are missing.

    Examples
    --------
    >>> n, d = [1e6, 1e6, 1e6, 4e6, 4e6, 4e6, 16e6, 16e6, 16e6], [2e7, 8e7, 32e7] * 3
    >>> loss = [2 + 300 * a**-0.35 + 500 * b**-0.35 for a, b in zip(n, d)]
    >>> fit = fit_losses({"params": n, "tokens": d, "loss": loss}, law="chinchilla")
    >>> round(fit.params["E"], 2), round(fit.params["alpha"], 2)
    (2.0, 0.35)
    """
    config = FitConfig(
        law=law,
        level=level,
        bootstraps=bootstraps,
        seed=seed,
        delta=delta,
        seed_noise=seed_noise,
        schedule=schedule,
        group=group,
        allow_extrapolation=allow_extrapolation,
        columns=dict(columns or {}),
        where=dict(where or {}),
        rows=rows,
        outliers=outliers,
    )
    if law != "auto":
        get_law(law)
    read = read_runs(table, columns, where=where, rows=rows, drop=outliers == "drop")
    fit = _fitted(read, config, progress)
    if target is None:
        return fit
    if not isinstance(target, Mapping) or not set(target) <= set(SCALE):
        raise RequestError(f"target={target!r}: must be a mapping of params and tokens")
    return fit.aimed(**target)


def _fitted(read: Runs, config: FitConfig, progress: Progress | None) -> Fit:
    """Return the fit of a table that was read; raises as `fit_losses`."""
    law, seed, bootstraps = config.law, config.seed, config.bootstraps
    names = [law] if law != "auto" else [f"power_in_{read.only}"] if read.only else list(AUTO)
    warnings = list(read.notes)
    try:
        runs, laws = _ready(read, names, config, warnings)
    except Refusal as refusal:
        raise Refusal(". ".join(s.rstrip(".") for s in (str(refusal), *warnings))) from None
    # one random generator for all laws: they are refitted to the same samples, and their mixture's draws are joint ones
    tell = steps(progress, len(laws) * (1 + len(splits(runs))))
    members = []
    for item in laws:
        tell(f"{item.name}, {bootstraps} refits")
        members.append(estimate(item, runs, config, bootstraps, np.random.default_rng([seed, 1000])))
    cuts = fit_cuts(runs, laws, config, seed, tell)
    predictor = assemble(runs, members, np.ones(len(runs), dtype=bool), cuts, replay(runs, cuts, config.level))
    fit = Fit(
        law,
        predictor,
        config,
        {},
        FitData(
            source=read.source,
            hash=read.hash,
            only=runs.only,
            params=read.size,
            rows=len(read),
            fitted=len(runs),
            schedule=_predicted(runs, "schedule"),
            group=_predicted(runs, "group"),
            ignored_columns=list(read.ignored),
            reading=list(read.reading),
        ),
        warnings,
        versions(),
    )
    fit = replace(fit, runs=_used(fit, runs))
    fit.warnings.extend(drifting_offsets(fit.main, runs))
    if fit.noise.source == FROM_REPEATS and fit.noise.run > UNUSUAL:
        fit.warnings.append(
            f"seed noise of {100 * fit.noise.run:.2g}% is unusual (0.02 to 0.5% in published tables): do the runs of "
            "one size and length differ in something that the table does not show?"
        )
    if law == "shared_exponents":
        fit = replace(fit, data=replace(fit.data, own_exponents=own_exponents(fit.main, runs, seed)))
    return fit


def _ready(read: Runs, names: list[str], config: FitConfig, warnings: list[str]) -> tuple[Runs, list[Law]]:
    """The runs that the laws describe, and the laws that they identify; what was left out is added to `warnings`.

    Raises
    ------
    RequestError, Refusal
        The rows contradict each other, or identify no law.
    """
    runs, said = once(read)
    warnings += said
    runs, said = asked_for(runs, config.schedule, config.group)
    warnings += said
    runs, said = best_settings(runs)
    warnings += said
    if LAWS[names[0]].single:
        runs, said = one_variable(LAWS[names[0]], runs)
        warnings += said
    runs, said = set_apart(runs, config.outliers)
    warnings += said
    refuse_unfit(runs)
    laws = _identified(names, runs)
    used = np.any([usable(item, runs) for item in laws], axis=0)
    warnings += left_out(laws, runs, used)
    return runs.take(used), laws


def _identified(names: list[str], runs: Runs) -> list[Law]:
    missing = {name: what_is_missing(LAWS[name], runs) for name in names}
    laws = [LAWS[name] for name in names if missing[name] is None]
    if not laws:
        first = next(iter(missing.values()))
        others = f"; nor do these runs identify {', '.join(names[1:])}" if len(names) > 1 else ""
        raise Refusal(f"{runs.source}: {first}{others}")
    return laws


def _predicted(runs: Runs, column: str) -> str | None:
    """Return the schedule or group that is predicted, where the table has several."""
    return str(runs.labels[column][runs.like_target][0]) if column in runs.labels else None


def _used(fit: Fit, runs: Runs) -> dict[str, list[float]]:
    """The runs as the main law sees them, for figures and residuals."""
    member = fit.main
    used = runs.take(usable(member.bound.law, runs))
    fitted = np.exp(member.bound.form.value(member.theta, member.bound.design(used.columns)))
    table: dict[str, Any] = {
        "row": used.row,
        **{c: used.columns[c] for c in ([runs.only] if runs.only else ["params", "tokens"])},
        **{c: used.numbers[c] for c in ("unique_tokens",) if c in used.numbers},
        "loss": used.loss,
        "fitted": fitted,
        "residual": np.log(used.loss / fitted),
    }
    out = {k: v.tolist() for k, v in table.items()}
    return out | {k: v.tolist() for k, v in used.labels.items()}
