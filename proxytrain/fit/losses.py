"""`fit_losses`: a table of final losses in, a fit with predictions, intervals and backtest out."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.backtest import assemble, fit_cuts, replay
from proxytrain.fit.bound import usable, what_is_missing
from proxytrain.fit.checks import best_settings, one_schedule, refuse_unfit
from proxytrain.fit.laws import AUTO, LAWS, get_law
from proxytrain.fit.options import FitConfig
from proxytrain.fit.predictor import estimate
from proxytrain.fit.result import Fit
from proxytrain.fit.table import Runs, read_runs


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
    allow_extrapolation: bool = False,
    columns: Mapping[str, str] | None = None,
) -> Fit:
    """Fit a law of final loss to a table of runs, backtest it, and be ready to predict a larger run.

    Parameters
    ----------
    table : pandas.DataFrame, mapping of str to array, or path of CSV or Parquet
        Columns `params`, `tokens`, `loss` (nats a token); optional `loss_se`, `lr`, `batch_tokens`, `schedule`,
        `init_seed`, `data_seed`, `trunk`, `group`, `weight`, `unique_tokens`. Others are ignored and listed.
    law : str
        "chinchilla", "tied", "params_at_tokens", ... (`proxytrain.fit.LAWS`), or "auto".
    target : mapping with params and tokens, optional
        The run to predict: `fit.prediction`.
    level, bootstraps, seed, delta, seed_noise, schedule, allow_extrapolation, columns
        See :class:`FitConfig`.

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
        law, level, bootstraps, seed, delta, seed_noise, schedule, allow_extrapolation, dict(columns or {})
    )
    names = list(AUTO) if law == "auto" else [get_law(law).name]
    read = read_runs(table, columns)
    runs, warnings = one_schedule(read, schedule)
    runs, more = best_settings(runs)
    warnings += more
    refuse_unfit(runs)
    laws = _identified(names, runs)
    used = np.any([usable(item, runs) for item in laws], axis=0)
    if not used.all():
        warnings.append(
            f"left out {int((~used).sum())} runs that {', '.join(item.name for item in laws)} cannot use (repeated "
            "tokens, or a single size at a length)"
        )
        runs = runs.take(used)
    # one random generator for all laws: they are refitted to the same samples, and their mixture's draws are joint ones
    members = [estimate(item, runs, config, bootstraps, np.random.default_rng([seed, 1000])) for item in laws]
    cuts = fit_cuts(runs, laws, config, seed)
    predictor = assemble(runs, members, np.ones(len(runs), dtype=bool), cuts, replay(runs, cuts, level))
    fit = Fit(
        law,
        predictor,
        config,
        {},
        {
            "source": read.source,
            "hash": read.hash,
            "rows": len(read),
            "fitted": len(runs),
            "schedule": str(runs.labels["schedule"][0]) if "schedule" in runs.labels else None,
            "ignored_columns": list(read.ignored),
        },
        warnings,
        versions(),
    )
    fit = replace(fit, runs=_used(fit, runs))
    if target is not None:
        if not isinstance(target, Mapping) or not {"params", "tokens"} <= set(target):
            raise RequestError(f"target={target!r}: must name params and tokens")
        fit = replace(fit, prediction=fit.predict(target["params"], target["tokens"]))
    return fit


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    from importlib.metadata import PackageNotFoundError, version

    import scipy

    try:
        own = version("proxytrain")
    except PackageNotFoundError:
        own = "unknown"
    return {"proxytrain": own, "numpy": np.__version__, "scipy": scipy.__version__, "python": platform.python_version()}


def _identified(names: list[str], runs: Runs) -> list[Any]:
    missing = {name: what_is_missing(LAWS[name], runs) for name in names}
    laws = [LAWS[name] for name in names if missing[name] is None]
    if not laws:
        raise Refusal("; ".join(f"{runs.source}: {m}" for m in missing.values() if m))
    return laws


def _used(fit: Fit, runs: Runs) -> dict[str, list[float]]:
    """The runs as the main law sees them, for figures and residuals."""
    member = fit.main
    used = runs.take(usable(member.bound.law, runs))
    fitted = np.exp(member.bound.form.value(member.theta, member.bound.design(used.numbers)))
    table: dict[str, Any] = {
        "row": used.row,
        "params": used.params,
        "tokens": used.tokens,
        "loss": used.loss,
        "fitted": fitted,
        "residual": np.log(used.loss / fitted),
    }
    out = {k: v.tolist() for k, v in table.items()}
    return out | {k: v.tolist() for k, v in used.labels.items() if k != "other"}
