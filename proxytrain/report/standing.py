"""Which of a sweep's recipes is better: those that differ in schedule, optimizer or any other key, each at its own best
rate, at equal tokens, FLOPs and seconds of this machine; and what each took to train.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxytrain.analysis.ranking import Ranking, rank
from proxytrain.errors import Refusal, RequestError
from proxytrain.plan.runs import Run
from proxytrain.plan.share import forest
from proxytrain.report.row import Row
from proxytrain.sweep import main as sweep
from proxytrain.sweep.request import Request

LEAST_RATES = 3  # of a recipe at a size and length, for its best to be seen
BUDGETS = {"tokens": "tokens", "flops": "FLOPs", "seconds": "device time"}
HINT = "not measured for all of them: `proxytrain probe` with these words does that"


@dataclass(frozen=True)
class Standing:
    """Rankings at equal tokens, and at equal FLOPs and seconds where a token costs differently; of each recipe the
    tokens trained with shared beginnings, and run by run, all sizes, lengths, rates and seeds together.
    """

    rankings: tuple[Ranking, ...]
    tokens: dict[str, tuple[int, int]]


def standing(asked: Request, rows: list[Row]) -> tuple[Standing | None, list[tuple[str, str]]]:
    """The standing of the recipes of a sweep, and what of it is missing and why; (None, []) where no two recipes were
    tried at several rates.
    """
    names = recipes(rows)
    runs = {run.id: run for run in asked.runs}
    tried: dict[tuple[object, ...], set[float]] = {}
    for r in rows:
        if r.status == "done":
            tried.setdefault((names[r.id], r.width, r.depth, r.tokens), set()).add(r.lr)
    if len({name for (name, *_), rates in tried.items() if len(rates) >= LEAST_RATES}) < 2:
        return None, []
    table = [_line(r, names[r.id], runs[r.id]) for r in rows]
    found: list[Ranking] = []
    missing: list[tuple[str, str]] = []
    for budget, words in BUDGETS.items():
        if budget != "tokens" and _alike(table, "shape" if budget == "seconds" else "flops"):
            continue  # as many tokens are as many FLOPs
        if budget == "seconds" and not _timed(asked, table, [runs[r.id] for r in rows]):
            missing.append((f"ranking at equal {words}", HINT))
            continue
        try:
            columns = {key: [line[key] for line in table] for key in table[0]}
            found.append(rank(columns, by="recipe", budget=budget, level=asked.config.fit.level))
        except (Refusal, RequestError) as error:
            missing.append((f"ranking at equal {words}", str(error).partition(": ")[2] or str(error)))
    tokens = {
        name: _tokens([runs[r.id] for r in rows if names[r.id] == name]) for name in dict.fromkeys(names.values())
    }
    return (Standing(tuple(found), tokens) if found else None), missing


def recipes(rows: list[Row]) -> dict[str, str]:
    """What tells the recipe of each run from the others, by run."""
    several = len({r.schedule for r in rows}) > 1
    out = {}
    for r in rows:
        parts = [r.schedule] if several else []
        for key, value in r.other:
            parts.append(value if key.endswith(".name") else f"{key.rpartition('.')[2]} {value}")
        out[r.id] = " ".join(parts) or "all"
    return out


def place(ranking: Ranking, i: int) -> str:
    """1, or 1–3."""
    return ranking.place(i).replace("-", "–")


def sentence(ranking: Ranking) -> str:
    """A ranking in a line."""
    behind = [f" ({x:+.2%})".replace("-", "−") if i else "" for i, x in enumerate(np.expm1(ranking.behind))]
    each = "; ".join(f"{place(ranking, i)} {name}{behind[i]}" for i, name in enumerate(ranking.names))
    return (
        f"{each}; differences below {100 * ranking.half:.2f}% are seed noise ({ranking.level:.0%}, all pairs together)"
    )


def _line(r: Row, name: str, run: Run) -> dict[str, Any]:
    return {
        "recipe": name,
        "width": f"width {r.width}, depth {r.depth}",
        "tokens": float(r.tokens),
        "flops": float(r.flops),
        "shape": run.recipe.shape,
        "lr": r.lr,
        "init_seed": r.init_seed,
        "data_seed": r.data_seed,
        "loss": r.loss if r.loss is not None else float("nan"),
    }


def _alike(table: list[dict[str, Any]], what: str) -> bool:
    """Whether recipes of a size are of one shape, or a token costs as many FLOPs under all of them."""
    found: dict[str, set[Any]] = {}
    for line in table:
        found.setdefault(line["width"], set()).add(
            line["shape"] if what == "shape" else round(line[what] / line["tokens"])
        )
    return all(len(values) == 1 for values in found.values())


def _timed(asked: Request, table: list[dict[str, Any]], runs: list[Run]) -> bool:
    """Write the seconds of each run into the table, by what `probe` measured here of the largest packs that were
    measured of all shapes; false where there are none.
    """
    try:
        speeds = sweep.speeds(asked)
    except RequestError:  # the device of the request is not here
        return False
    known = {run.recipe.shape: speeds.token(run.recipe) for run in runs}
    common = set.intersection(*(set(found) for found in known.values()))
    if not common:
        return False
    for line, run in zip(table, runs):
        line["seconds"] = known[run.recipe.shape][max(common)] * run.tokens
    return True


def _tokens(runs: list[Run]) -> tuple[int, int]:
    return sum(n.end - n.start for n in forest(runs).values()), sum(run.tokens for run in runs)


def best_rates(ranking: Ranking, i: int) -> str:
    """The range of a recipe's best rates over the cells."""
    rates = sorted(float(c.lr[i]) for c in ranking.cells)
    edge = Counter(int(c.edge[i]) for c in ranking.cells if c.edge[i])
    text = f"{rates[0]:.2g}" if rates[-1] < 1.05 * rates[0] else f"{rates[0]:.2g} – {rates[-1]:.2g}"
    return f"{text} (edge of those tried in {edge.total()} of {len(ranking.cells)})" if edge else text
