"""The target's whole curve, by laws of whole curves that are fitted to a few of the sweep's."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from proxytrain import outcomes
from proxytrain.compose import leaves
from proxytrain.errors import RequestError
from proxytrain.fit import CurveFit, fit_curves, load_fit
from proxytrain.request import Request

LAW = "progress"  # alone about as good as the average of laws, in a third of its time
MOST_SIZES, MOST_SCHEDULES = 5, 3  # of the curves that are fitted
POINTS = 120  # that are drawn, evenly in tokens and in their logarithm each
FREE = ("model.width", "tokens", "init_seed", "data_seed", "warmup")  # may differ from the target's


@dataclass(frozen=True)
class Course:
    """Loss of the target after `tokens` (n,), with pointwise bands, thinned for drawing."""

    tokens: np.ndarray
    loss: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    note: str
    law: str
    curves: int
    shift: float  # log of validation loss over training loss


def course(asked: Request) -> Course:
    """The curve that the target should take.

    Raises
    ------
    Refusal
        If the curves cannot tell.
    RequestError
        If one of them cannot be read.
    """
    assert asked.target
    assert asked.target_record
    rates = outcomes.target_rates(asked.target)
    fitted = _fit(asked)
    n = float(outcomes.target_params(asked.target_record, None))
    p = fitted.predict(rates, params=n)
    last = len(p.loss) - 1
    at = np.unique(np.r_[np.geomspace(1, last + 1, POINTS) - 1, np.linspace(0, last, POINTS)].astype(int))
    tokens = (at + 1) * asked.target.recipe.batch_tokens
    law, curves = fitted.main.law.name, int(fitted.data["curves"])
    shift = fitted.ratio.at(n)[0] if fitted.ratio else 0.0
    return Course(tokens, p.loss[at], p.low[at], p.high[at], p.level, p.note, law, curves, float(shift))


def _fit(asked: Request) -> CurveFit:
    """What `fit curves=sweep` left in `curve_fit.json` while it has all that matters, else one law fitted to a few
    curves, and left there.
    """
    chosen, path, options = _telling(asked), asked.folder / "curve_fit.json", asked.config.fit
    wanted = (options.level, options.allow_extrapolation, version("proxytrain"))
    with suppress(RequestError):  # none, broken, or of another format: fitted again
        kept = load_fit(path)
        if isinstance(kept, CurveFit) and wanted == (kept.level, kept.allow_extrapolation, kept.versions["proxytrain"]):
            names = {str(name) for name in kept.data["names"]}
            if {r["id"] for r in chosen} <= names <= set(asked.ids):
                return kept
    result = fit_curves(
        outcomes.curves(asked.store, chosen),
        law=LAW,
        level=options.level,
        allow_extrapolation=options.allow_extrapolation,
    )
    result.save(path)
    return result


def _telling(asked: Request) -> list[dict[str, Any]]:
    """The runs whose curves tell most: the longest of each size and schedule in the target's setting, of the lowest
    seeds; under one schedule also the shortest, whose rate parts from it.
    """
    goal = asked.target_record
    assert goal
    cells: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for r in asked.records:
        done = (asked.store.result(r["id"]) or {}).get("status") == "done" and r["schedule"] != "average"
        if done and _setting(r) == _setting(goal):
            cells.setdefault((r["schedule"], r["config"]["model"]["width"]), []).append(r)
    names = sorted({name for name, _ in cells}, key=lambda name: (name != goal["schedule"], name))[:MOST_SCHEDULES]
    widths = sorted({w for _, w in cells})
    kept = {widths[round(i)] for i in np.linspace(0, len(widths) - 1, min(MOST_SIZES, len(widths)))}
    out = []
    for (name, width), found in sorted(cells.items()):
        if name in names and width in kept:
            first = min(map(_seeds, found))
            ordered = sorted((r for r in found if _seeds(r) == first), key=lambda r: r["tokens"])
            out += [ordered[-1]] if len(names) > 1 or len(ordered) == 1 else [ordered[0], ordered[-1]]
    return out


def _setting(record: dict[str, Any]) -> list[tuple[str, Any]]:
    """What must be the target's."""
    settings = leaves(record["config"])
    return [(k, v) for k, v in settings if k not in FREE and not k.startswith("schedule.")]


def _seeds(record: dict[str, Any]) -> tuple[int, int]:
    return record["config"]["init_seed"], record["config"]["data_seed"]
