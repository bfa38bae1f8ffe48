"""Rows of one run before its end: recognised, since their losses are not those of finished runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import RequestError
from proxytrain.fit.tables.runs import Runs, numbered, to_levels

RUN_NAMES = ("run", "run_id", "run_name", "id", "uid", "wandb_id", "model", "model_name", "name", "experiment", "exp")
OF_ONE_RUN = RUN_NAMES[:6]  # several rows under one of these are one run
STEP_NAMES = ("step", "_step", "global_step", "iteration", "iter", "checkpoint", "ckpt")
PLANNED = ("total_steps", "max_steps", "num_steps", "train_steps", "total_tokens", "max_tokens", "train_tokens")
LEAST_LENGTHS = 6  # lengths of one run that are evenly spaced, where a column names the run or the step
LEAST_LENGTHS_ALONE = 8  # where nothing does
EVEN = 0.05  # spacings that differ by no more than this share of their median are even


def only_finished(runs: Runs, unknown: Mapping[str, Array], rows: str | None) -> tuple[Runs, list[str]]:
    """Return the rows that end a run, and what was left out.

    Under a learning rate that depends on the run's end (cosine, WSD) the loss before the end is not that of a shorter
    run (arXiv 2203.15556, figure A1), so such rows must not be fitted.

    Parameters
    ----------
    runs : those of the table
    unknown : column -> (n,) values as texts
    rows : "runs": each row is a finished run; "last": only the last row of each run is; "checkpoints": rows of one run
        all count, and share its seed noise (for constant rates). None: as recognised.

    Raises
    ------
    RequestError
        Where checkpoints are asked for and no run has several rows, or none has reached its planned length.
    """
    found = None if rows == "runs" or runs.only else _runs_with_checkpoints(runs, unknown, rows is not None)
    if found is None:
        if rows in ("last", "checkpoints"):
            raise RequestError(
                f"fit.rows={rows}: nothing in {runs.source} shows which rows are one run. Add a column `run`."
            )
        return runs, [] if rows else _perhaps(runs, unknown)
    run, name = found
    count, of = int(run.max()) + 1, f"column {name}" if name else "equal size and settings, evenly spaced tokens"
    if rows == "checkpoints":
        labels = {**runs.labels, "trunk": np.array([f"run {i}" for i in run])}
        told = f"the {len(runs)} rows are checkpoints of {count} runs ({of}); all are fitted, as fit.rows says"
        return Runs(**{**vars(runs), "labels": labels}), [told]
    order = np.lexsort((runs.tokens, run))
    last = np.zeros(len(runs), dtype=bool)
    last[order[np.r_[run[order][1:] != run[order][:-1], True]]] = True
    short = last & _short(runs, unknown)
    keep = last & ~short
    if not keep.any():
        raise RequestError(
            f"{runs.source}: none of its {count} runs has reached its planned length. Add finished runs."
        )
    said = [
        f"the {len(runs)} rows are checkpoints of {count} runs ({of}): only the last row of each is a finished run and "
        "is fitted. fit.rows=runs fits all rows, fit.rows=checkpoints too, as dependent (constant learning rates only)"
    ]
    if short.any():
        numbers = ", ".join(map(str, np.sort(runs.row[short])[:6]))
        said.append(f"left out {int(short.sum())} runs that ended before their planned length (rows {numbers})")
    return runs.take(keep), said


def _perhaps(runs: Runs, unknown: Mapping[str, Array]) -> list[str]:
    """A warning where a column that counts steps suggests checkpoints, and nothing else tells."""
    names = {c.lower(): c for c in unknown}
    size = numbered(_alike(runs))
    stepped = [names[c] for c in STEP_NAMES if c in names and _rises(unknown[names[c]], runs.tokens, size)]
    if runs.only or not stepped or _named_alone(names, unknown, len(runs)):
        return []
    return [
        f"column {stepped[0]} rises within runs of one size: each row was read as a finished run. If rows are "
        "checkpoints of one run, say fit.rows=last"
    ]


def _runs_with_checkpoints(runs: Runs, unknown: Mapping[str, Array], known: bool) -> tuple[Array, str] | None:
    """The run (n,) of each row and the column that names it, where rows are (`known`) or seem to be checkpoints."""
    alike = _alike(runs)
    names = {c.lower(): c for c in unknown}
    if not known and _named_alone(names, unknown, len(runs)):
        return None
    stepped = any(names.get(c) and _rises(unknown[names[c]], runs.tokens, numbered(alike)) for c in STEP_NAMES)
    for name in RUN_NAMES:
        if name not in names or len(np.unique(unknown[names[name]])) == len(runs):
            continue
        run = numbered([unknown[names[name]], *alike])
        several = len(np.unique(np.stack([run, runs.tokens]), axis=1).T) > run.max() + 1
        if several and (known or name in OF_ONE_RUN or _even(run, runs.tokens, LEAST_LENGTHS)):
            return run, names[name]
    run = numbered(alike)
    several = int(run.max()) + 1 < len(run)
    least = LEAST_LENGTHS if stepped else LEAST_LENGTHS_ALONE
    return (run, "") if several and (known or _even(run, runs.tokens, least)) else None


def _alike(runs: Runs) -> list[Array]:
    """Columns (n,) in which the rows of one run agree."""
    alike = [to_levels(runs.params).astype(str), *runs.seeds]
    alike += [runs.numbers[c].astype(str) for c in ("lr", "batch_tokens", "unique_tokens") if c in runs.numbers]
    alike += [runs.labels[c] for c in ("schedule", "group") if c in runs.labels]
    return alike + list(runs.settings.values())


def _named_alone(names: Mapping[str, str], unknown: Mapping[str, Array], rows: int) -> bool:
    """Whether a column names each row as a run of its own."""
    own = [unknown[names[n]] for n in OF_ONE_RUN if n in names]
    return any(len(np.unique(v)) == rows and not all(x.isdigit() for x in v) for v in own)  # digits may number the rows


def _rises(steps: Array, tokens: Array, run: Array) -> bool:
    """Whether a column of numbers rises with the tokens of a run."""
    try:
        value = steps.astype(float)
    except ValueError:
        return False
    if not np.isfinite(value).all():
        return False
    order = np.lexsort((tokens, run))
    same = run[order][1:] == run[order][:-1]
    return bool(same.any() and (np.diff(value[order])[same] > 0).all())


def _even(run: Array, tokens: Array, least: int) -> bool:
    """Whether most rows lie in runs of at least `least` lengths, most of them evenly spaced."""
    inside = 0
    for i in np.unique(run):
        lengths = np.unique(tokens[run == i])
        if len(lengths) < least:
            continue
        step = np.diff(lengths)
        even = np.abs(step / np.median(step) - 1.0) < EVEN
        inside += int((run == i).sum()) if even.mean() > 0.6 else 0
    return inside > len(run) / 2


def _short(runs: Runs, unknown: Mapping[str, Array]) -> Array:
    """Mask (n,) of rows before the planned end of their run, where a column says when that is."""
    names = {c.lower(): c for c in unknown}
    short = np.zeros(len(runs), dtype=bool)
    for planned in PLANNED:
        reached = next((names[s] for s in STEP_NAMES if s in names), None) if planned.endswith("steps") else "tokens"
        if planned not in names or reached is None:
            continue
        try:
            goal = unknown[names[planned]].astype(float)
            now = runs.tokens if reached == "tokens" else unknown[reached].astype(float)
        except ValueError:
            continue
        short |= now < 0.98 * goal
    return short
