"""Runs that anybody logged to W&B, as a table for `fit`: `fit wandb=entity/project`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxytrain.errors import RequestError
from proxytrain.fit.table import LABELS, NUMERIC, SCALE, SEEDS
from proxytrain.track.client import SECONDS, key_known

# where a run that this package mirrored has what a table calls otherwise
OURS = {"params": "params_nonembedding", "loss": "final_loss", "loss_se": "val_se", "schedule": "schedule.name"}
OURS["trunk"] = "recipe_id"


def read_logged(path: str, columns: Mapping[str, str]) -> tuple[dict[str, list[Any]], str]:
    """Finished runs as columns of a table, and a sentence on what was read and what was left out.

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
        raise RequestError(
            f"fit.columns: {unknown[0]!r} is not a column that is used; use {', '.join(NUMERIC + LABELS)}"
        )
    runs = _runs(path, entity, project, group)
    found = [{c: v for c in (*NUMERIC, *LABELS) if (v := _value(run, c, columns)) is not None} for run in runs]
    whole = [(run, row) for run, row in zip(runs, found) if "loss" in row and set(row) & set(SCALE)]
    if not whole:
        keys = sorted({k for run in runs[:20] for k in _flat(run["config"]) | _flat(run["summary"]) if k[0] != "_"})
        lacking = "loss" if not any("loss" in row for row in found) else "params, tokens or flops"
        have = f"; name its key with fit.columns={{...}}; they have {', '.join(keys[:40])}" if keys else ""
        raise RequestError(f"wandb={path}: none of {len(runs)} finished runs has a number as {lacking}{have}")
    names = [c for c in (*NUMERIC, *LABELS) if all(c in row for _, row in whole)]
    table = {c: [row[c] for _, row in whole] for c in names}
    if set(SEEDS) & set(names):
        table = {"run": [run["id"] for run, _ in whole], **table}
    left = f", {len(runs) - len(whole)} left out for want of loss, params or tokens" if len(whole) < len(runs) else ""
    return table, f"{len(whole)} finished runs of {path}{left}; columns {', '.join(names)}"


def _runs(path: str, entity: str, project: str, group: str) -> list[dict[str, Any]]:
    """Id, config and summary of the finished runs; not of targets that were trained to verify a prediction."""
    import wandb

    if not key_known():
        raise RequestError(f"wandb={path}: wandb knows no key; set WANDB_API_KEY, or run `wandb login`")
    wanted: dict[str, Any] = {"state": "finished", **({"group": group} if group else {})}
    try:
        found = wandb.Api(timeout=int(SECONDS)).runs(f"{entity}/{project}", filters=wanted, per_page=100, lazy=False)
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
    """A number or a text; None where the run has none."""
    keys = [columns[column]] if column in columns else [column, OURS.get(column, column)]
    for key in keys:
        for place in (run["summary"], run["config"]):
            value = place.get(key, _flat(place).get(key))
            if isinstance(value, int | float | str) and not isinstance(value, bool):
                return value
    return None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested mappings."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if hasattr(value, "items"):
            flat |= _flat(dict(value.items()), f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
