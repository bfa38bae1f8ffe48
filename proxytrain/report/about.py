"""What a sweep without a target is about, in words: what varies in it, its best run, and how its recipes compare at
the same rate, where too few were tried for `standing` to compare each at its own best.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.report import ink
from proxytrain.report.row import Row
from proxytrain.report.standing import recipes

MOST = 8  # values or recipes that are named


def about(rows: list[Row], ranked: bool) -> list[tuple[str, str]]:
    """Names and texts; `ranked` where a standing of the recipes is shown already."""
    out = [("Runs", _varied(rows))]
    best = best_of(rows)
    if best is None:
        return out
    bits = f", {best.bits_per_byte:.4f} bits a byte" if best.bits_per_byte else ""
    out.append(("Best run", f"{_named(best)}: {best.final:.4f} ± {best.val_se or 0:.4f} nats a token{bits}"))
    compared = "" if ranked else _compared(rows)
    return [*out, ("Recipes at the same rate", compared)] if compared else out


def best_of(rows: Iterable[Row]) -> Row | None:
    """The run of the lowest final loss; None before the first is done."""
    return min((r for r in rows if r.status == "done"), key=lambda r: r.final, default=None)


def _varied(rows: list[Row]) -> str:
    """What differs between the runs, each with its values."""
    keys: dict[str, set[Any]] = {
        "width": {r.width for r in rows},
        "depth": {r.depth for r in rows},
        "tokens": {r.tokens for r in rows},
        "schedule": {r.schedule for r in rows},
        "lr": {r.lr for r in rows},
    }
    for name in dict.fromkeys(name for r in rows for name, _ in r.other):
        keys[name] = {_number(value) for r in rows for key, value in r.other if key == name}
    parts = [f"{name} {_values(name, found)}" for name, found in keys.items() if len(found) > 1]
    seeds = len({(r.init_seed, r.data_seed) for r in rows})
    parts += [f"{seeds} seeds"] if seeds > 1 else []
    return f"{len(rows)}, which differ in {'; '.join(parts)}" if parts else f"{len(rows)} of one setting"


def _values(name: str, found: set[Any]) -> str:
    numbers = all(isinstance(v, int | float) for v in found)
    ordered = sorted(found) if numbers else sorted(found, key=str)
    texts = [ink.count(v) if name == "tokens" else f"{v:g}" if isinstance(v, float) else str(v) for v in ordered]
    if len(texts) <= MOST:
        return ", ".join(texts)
    return f"{texts[0]} to {texts[-1]} ({len(texts)} values)" if numbers else f"{', '.join(texts[:MOST])} and more"


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _named(r: Row) -> str:
    other = "".join(f", {key} {value}" for key, value in r.other)
    return (
        f"width {r.width}, depth {r.depth}, {ink.count(r.tokens)} tokens, {r.schedule}, lr {r.lr:g}{other}, "
        f"seed {r.seeds} ({r.id[:8]})"
    )


def _compared(rows: list[Row]) -> str:
    """Mean losses of the recipes over the settings that all of them have, each against the best, paired by setting;
    empty where there are no two recipes or no such setting.
    """
    names = recipes(rows)
    cells: dict[str, dict[tuple[object, ...], float]] = {name: {} for name in names.values()}
    for r in rows:
        if r.status == "done":
            cells[names[r.id]][r.width, r.depth, r.tokens, r.lr, r.init_seed, r.data_seed] = r.final
    shared = set.intersection(*(set(found) for found in cells.values()))
    if len(cells) < 2 or not shared:
        return ""
    settings = sorted(shared)
    logs = {name: np.log([found[s] for s in settings]) for name, found in cells.items()}
    order = sorted(logs, key=lambda name: float(logs[name].mean()))
    parts = [f"{order[0]} {np.exp(logs[order[0]].mean()):.4f}"]
    parts += [f"{name} {_behind(logs, name, order[0])}" for name in order[1:MOST]]
    more = f" and {len(order) - MOST} more" if len(order) > MOST else ""
    n = len(settings)
    if n == 1:
        return f"{'; '.join(parts)}{more}, in one setting: no difference can be told from luck"
    return (
        f"{'; '.join(parts)}{more}; geometric means over {n} settings of one size, length, rate and seed that all "
        "have, with the standard error of the difference; another rate may suit each better"
    )


def _behind(logs: Mapping[str, Array], name: str, best: str) -> str:
    """How far above the best, in percent, with its standard error over the settings."""
    apart = logs[name] - logs[best]
    error = f" ± {100 * apart.std(ddof=1) / math.sqrt(len(apart)):.2f}%" if len(apart) > 1 else ""
    return f"{100 * math.expm1(float(apart.mean())):+.2f}%{error}".replace("-", "−")
