"""Curves of runs: one row per update from the first token on, evaluations, and telemetry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import RequestError

CURVE_ARRAYS = ("tokens", "lr", "loss", "grad_norm", "eval_tokens", "eval_loss")  # arrays of `curve.npz`
Telemetry = dict[str, Array]  # name -> (k,), "tokens" among them; {}: none


@dataclass(frozen=True, kw_only=True)
class RunCurve:
    """The whole curve of a run, trunk included: one row per update, and evaluations on the small slice."""

    step: Array  # (n,) updates made before the row's batch was read
    tokens: Array  # (n,) tokens read after the row's update
    lr: Array  # (n,)
    loss: Array  # (n,) training loss of the row's batch before its update, nats/token
    grad_norm: Array  # (n,) before clipping
    eval_tokens: Array  # (m,)
    eval_loss: Array  # (m,)
    telemetry: Telemetry = field(default_factory=dict)


def read_segment(path: Path, columns: Sequence[str]) -> tuple[dict[str, Array], Telemetry]:
    """Return the arrays of `CURVE_ARRAYS` and the telemetry of one segment.

    Parameters
    ----------
    path : `curve.npz` of the segment
    columns : names of its telemetry

    Raises
    ------
    RequestError
        If the file is not a whole curve.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            rows = {name: file[name] for name in CURVE_ARRAYS}
            seen = by_name(file["telemetry_tokens"], file["telemetry"], columns) if "telemetry" in file else {}
            return rows, seen
    except Exception as error:  # a file that somebody else may have written: whatever is wrong with it
        raise RequestError(f"{path}: not a whole curve ({error}); delete {path.parent}") from None


def by_name(tokens: Array, values: Array, columns: Sequence[str]) -> Telemetry:
    """Return telemetry as arrays by name, from its tokens (m,) and values (m, columns); {} where nothing was seen."""
    return {"tokens": tokens, **dict(zip(columns, values.T, strict=True))} if len(tokens) else {}


def end_to_end(pieces: Sequence[Telemetry]) -> Telemetry:
    """Return the telemetry of segments in order as one; NaN where one lacks what another has."""
    found = [p for p in pieces if p]
    names = dict.fromkeys(name for p in found for name in p)
    return {n: np.concatenate([p.get(n, np.full(len(p["tokens"]), np.nan)) for p in found]) for n in names}
