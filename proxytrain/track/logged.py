"""Runs that anybody logged to W&B, as a table for `fit`: `fit wandb=entity/project`.

What a run was set to stands in its config; what it reached, in its summary. The last logged learning rate is not the
peak, so settings are looked for in the config first, and losses in the summary first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from proxytrain.errors import RequestError, did_you_mean
from proxytrain.fit.tables.runs import LABELS, NUMERIC, SCALE
from proxytrain.track.client import TIMEOUT_SECONDS, key_known

# where a run has what a table calls otherwise: a run that this package mirrored, then one of others
OTHERS = {
    "params": ("params_nonembedding",),
    "loss": ("final_loss",),
    "loss_se": ("val_se",),
    "schedule": ("schedule.name",),
    "trunk": ("recipe_id",),
    "init_seed": ("seed", "train.seed", "training.seed", "random_seed"),
}
SUMMARY_FIRST = ("loss", "loss_se", "tokens", "flops")  # of the summary first; all else is of the config first
UNEQUAL = 0.01  # relative difference of two values that are not one
NAMED_KEYS = 40

Row = dict[str, Any]


def read_logged(path: str, columns: Mapping[str, str]) -> tuple[dict[str, list[Any]], str]:
    """Return finished runs as columns of a table, and a sentence on what was read and what was left out.

    Keys of the config that differ between the runs are columns too, under their own names, so that a fit sees them as
    settings.

    Parameters
    ----------
    path : entity/project, or entity/project/group
    columns : our name (params, tokens, loss, ...) to the key under which the runs have it: of their summary, or of
        their config with dots (model.n_params). What is not named is looked for under its own name.

    Raises
    ------
    RequestError
        If there is no such project, or no finished run has what a fit needs: names the keys that runs have.
    """
    entity, _, rest = path.partition("/")
    project, _, group = rest.partition("/")
    if not (entity and project):
        raise RequestError(f"wandb={path}: must be entity/project, or entity/project/group")
    unknown = sorted(set(columns) - {*NUMERIC, *LABELS})
    if unknown:
        hint = did_you_mean(unknown[0], NUMERIC + LABELS)
        raise RequestError(
            f"fit.columns: {unknown[0]!r} is not a column that is used; use {', '.join(NUMERIC + LABELS)}{hint}"
        )
    runs = _runs(path, entity, project, group)
    if not runs:
        raise RequestError(f"wandb={path}: it has no finished run")
    found = [{c: v for c in (*NUMERIC, *LABELS) if (v := _value(run, c, columns)) is not None} for run in runs]
    names, whole = _with_most(path, columns, runs, found)
    table: dict[str, list[Any]] = {"run": [run["id"] for run, _ in whole]}
    table |= {c: [row[c] for _, row in whole] for c in names}
    read = {columns.get(c, c) for c in names} | {k for c in names for k in OTHERS.get(c, ())}
    table |= _settings([run for run, _ in whole], read | set(table))
    told = [f"{len(whole)} finished runs of {path}"]
    if len(whole) < len(runs):
        lost = sum("loss" not in row for row in found)
        told[0] += f", {len(runs) - len(whole)} left out"
        told[0] += f" ({lost} without a finite loss)" if lost else " for want of a value that the others have"
    told.append(f"columns {', '.join(names)}")
    if more := [c for c in table if c not in (*names, "run")]:
        told.append(f"config keys that differ: {', '.join(more[:12])}{', ...' if len(more) > 12 else ''}")
    return table, "; ".join(told + _two_values([run for run, _ in whole], names, columns))


def _with_most(
    path: str, columns: Mapping[str, str], runs: list[dict[str, Any]], found: list[Row]
) -> tuple[list[str], list[tuple[dict[str, Any], Row]]]:
    """The columns that (nearly) all runs with a loss have, and the runs that have them all."""
    lossy = [row for row in found if "loss" in row]
    # a column that few runs lack is needed of all; one that many lack is not read
    names = [
        c for c in (*NUMERIC, *LABELS) if sum(c in row for row in lossy) > (0 if c in columns else 0.8 * len(lossy))
    ]
    whole = [(run, row) for run, row in zip(runs, found) if all(c in row for c in names)]
    if not whole or "loss" not in names or not set(names) & set(SCALE):
        keys = sorted({k for run in runs[:20] for k in _flat(run["config"]) | _flat(run["summary"]) if k[0] != "_"})
        lacking = "loss" if not lossy else "params, tokens or flops"
        have = f"; name its key with fit.columns={{...}}; they have {', '.join(keys[:NAMED_KEYS])}" if keys else ""
        raise RequestError(f"wandb={path}: none of {len(runs)} finished runs has a number as {lacking}{have}")
    return names, whole


def _settings(runs: list[dict[str, Any]], read: set[str]) -> dict[str, list[Any]]:
    """Config keys with plain values that differ between runs; where a run has none, the cell is empty."""
    flats = [_flat(run["config"]) for run in runs]
    keys = dict.fromkeys(k for flat in flats for k, v in flat.items() if isinstance(v, bool | int | float | str))
    out = {}
    for key in keys:
        values = [flat.get(key, "") for flat in flats]
        if key not in read and not key.startswith("_") and len(set(map(str, values))) > 1:
            out[key] = ["" if isinstance(v, list | dict) or v is None else v for v in values]
    return out


def _two_values(runs: list[dict[str, Any]], names: list[str], columns: Mapping[str, str]) -> list[str]:
    """What config and summary disagree on, with an example and which of them was taken."""
    told = []
    for c in names:
        key = columns.get(c, c)
        pairs = [(_number(_flat(run["config"]).get(key)), _number(_flat(run["summary"]).get(key))) for run in runs]
        apart = [(a, b) for a, b in pairs if a is not None and b is not None and abs(a - b) > UNEQUAL * abs(a)]
        if apart:
            a, b = apart[0]
            taken = "summary" if c in SUMMARY_FIRST else "config"
            told.append(
                f"{key} differs between config and summary in {len(apart)} runs (such as {a:.4g} and {b:.4g}): "
                f"the {taken}'s was read"
            )
    return told


def _runs(path: str, entity: str, project: str, group: str) -> list[dict[str, Any]]:
    """Id, config and summary of the finished runs; not of targets that were trained to verify a prediction."""
    import wandb

    if not key_known():
        raise RequestError(f"wandb={path}: wandb knows no key; set WANDB_API_KEY, or run `wandb login`")
    wanted: dict[str, Any] = {"state": "finished", **({"group": group} if group else {})}
    try:
        api = wandb.Api(timeout=int(TIMEOUT_SECONDS))
        found = api.runs(f"{entity}/{project}", filters=wanted, per_page=100, lazy=False)
        return [
            {"id": run.id, "config": dict(run.config), "summary": dict(run.summary)}
            for run in found
            if run.job_type not in ("target", "sweep")
        ]
    except Exception as error:  # whatever wandb raises: no network, no such project, no rights
        raise RequestError(f"wandb={path}: {' '.join(str(error).split())[:300]}") from None
    finally:
        wandb.teardown()


def _value(run: dict[str, Any], column: str, columns: Mapping[str, str]) -> Any:
    """A finite number or a text; None where the run has none."""
    places = [run["summary"], run["config"]] if column in SUMMARY_FIRST else [run["config"], run["summary"]]
    for key in [columns[column]] if column in columns else [column, *OTHERS.get(column, ())]:
        for place in places:
            value = place.get(key, _flat(place).get(key))
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                continue
            if column in LABELS or (number := _number(value)) is None:
                if column in LABELS and value != "":
                    return value
                continue
            return value if isinstance(value, int | float) else number
    return None


def _number(value: Any) -> float | None:
    """A finite number, also from its text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested mappings."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if hasattr(value, "items"):
            flat |= _flat(dict(value.items()), f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
