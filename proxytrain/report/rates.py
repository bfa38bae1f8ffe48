"""Peak learning rates, where the grid tried several: the runs by size, and the law of the optimum fitted to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit import Fit, Optimum, OptimumFit, fit_optimum
from proxytrain.report.ink import HIGHEST
from proxytrain.report.row import Row
from proxytrain.store.documents import RunRecord

LEAST = 3  # rates tried of a setting


@dataclass(frozen=True)
class RateCell:
    """Runs of one size and length that differ in their peak rate and seeds only.

    `best` is the optimum by the fitted law's shape; at an edge of the rates tried it is that rate, and `edge` says on
    which side (-1, 1) the rest is missing. `good` are the least and the largest rate tried whose mean loss is above the
    lowest by no more than the seed noise of a difference of two.
    """

    row: Row
    rates: Array  # (n,)
    losses: Array  # (n,) mean over seeds
    runs: list[Row]
    best: float
    edge: int
    good: tuple[float, float]


@dataclass(frozen=True)
class Rates:
    """Cells of one length and schedule, by size; the law of the optimum over all lengths, and the target's optimum."""

    cells: list[RateCell]
    law: OptimumFit | None
    target: Optimum | None
    batch_tokens: float


def rates(rows: list[Row], target: RunRecord | None, fitted: Fit | None) -> tuple[Rates | None, str]:
    """Of the length and schedule under which most sizes tried several rates, and why there is no law where there is
    none; (None, "") where nothing was trained at three rates.
    """
    found: dict[tuple[str, tuple[tuple[str, str], ...], int, int], dict[float, list[Row]]] = {}
    for r in rows:
        if r.status == "done" and r.final < HIGHEST:
            found.setdefault((r.schedule, r.other, r.tokens, r.params), {}).setdefault(r.lr, []).append(r)
    found = {k: v for k, v in found.items() if len(v) >= LEAST}
    if not found:
        return None, ""
    main = target.schedule if target else None
    groups = [k[:3] for k in found]
    chosen = max(dict.fromkeys(groups), key=lambda g: (groups.count(g), g[0] == main, g[2]))
    law, goal, why = None, None, ""
    runs = [r for k, cell in found.items() if k[:2] == chosen[:2] for group in cell.values() for r in group]
    columns = ("params", "tokens", "lr")
    table = {c: [float(getattr(r, c)) for r in runs] for c in columns} | {"loss": [r.final for r in runs]}
    batch = float(runs[0].batch_tokens)
    try:
        law = fit_optimum(table)
        if target and target.schedule == chosen[0]:
            n = float(target.params.non_embedding)
            goal = law.predict(n, float(target.tokens), float(target.config.batch_tokens))
    except (Refusal, RequestError) as error:
        why = str(error)
    noise = fitted.noise.run if fitted else 0.0
    keys = sorted((k for k in found if k[:3] == chosen), key=lambda k: k[3])
    return Rates([_cell(found[k], law, noise) for k in keys], law, goal, batch), why


def _cell(found: dict[float, list[Row]], law: OptimumFit | None, noise: float) -> RateCell:
    tried = np.array(sorted(found))
    losses = np.array([np.mean([r.final for r in found[lr]]) for lr in tried])
    seeds = np.array([len(found[lr]) for lr in tried])
    k = int(losses.argmin())
    edge = -1 if k == 0 else 1 if k == len(tried) - 1 else 0
    runs = [r for lr in tried for r in found[float(lr)]]
    best = float(tried[k])
    if law and not edge:
        far = np.abs(np.log(law.about["params"] / runs[0].params)) + np.abs(
            np.log(law.about["tokens"] / runs[0].tokens)
        )
        best = float(law.optimum["lr"][int(far.argmin())]) if far.min() < 0.05 else best
    near = tried[np.log(losses / losses[k]) <= noise * np.sqrt(1 / seeds + 1 / seeds[k])]
    return RateCell(runs[0], tried, losses, runs, best, edge, (float(near.min()), float(near.max())))
