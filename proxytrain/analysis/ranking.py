"""Which recipe is better, and which was only tuned better, or lucky? Variants at their own best learning rates, at
equal tokens, FLOPs or seconds, seed by seed: of the same text in the same order.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.core.level import checked_level
from proxytrain.fit.tables.load import load
from proxytrain.fit.tables.runs import to_levels

SAME_BUDGET = 1.01  # budgets nearer than this factor are one
PAIRED_SEEDS = ("init_seed", "data_seed")


@dataclass(frozen=True)
class Cell:
    """One size at one budget: log loss of each variant (V,) over their mean, best rates (V,), and on which side of the
    rates tried the best may lie beyond (V,): -1, 1, or 0 where it does not.
    """

    size: str
    budget: float
    loss: Array
    lr: Array
    edge: Array


@dataclass(frozen=True)
class Ranking:
    """Variants, the best first.

    `loss` (V,) is the geometric mean over cells and seeds at the best rates. Two variants differ beyond seed noise if
    their log losses are further apart than `half`, which holds for all pairs at once (Tukey's studentized range) at
    `level`; `better[i, j]` says that i is so much better than j, and that j's best rate lies inside those tried.
    `ranks` (V, 2) are the first and last place that a variant may have. `sd` is the seed SD of a variant's log loss
    against the others', averaged over a size's budgets, `freedom` what it rests on.
    """

    budget: str
    names: tuple[str, ...]
    loss: Array
    half: float
    better: Array
    ranks: Array
    sd: float
    freedom: int
    seeds: int
    level: float
    cells: tuple[Cell, ...]
    warnings: tuple[str, ...]

    @property
    def behind(self) -> Array:
        """(V,) log loss over that of the best."""
        return np.log(self.loss / self.loss[0])

    def place(self, i: int) -> str:
        """1, or 1-3."""
        first, last = self.ranks[i]
        return str(first) if first == last else f"{first}-{last}"

    def content(self) -> dict[str, Any]:
        """As plain JSON types."""
        places = zip(self.names, self.loss.tolist(), self.ranks.tolist())
        return {
            "budget": self.budget,
            "half": self.half,
            "level": self.level,
            "recipes": [{"name": n, "loss": loss, "places": ranks} for n, loss, ranks in places],
            "warnings": list(self.warnings),
        }

    def summary(self) -> list[str]:
        """Short lines for people."""
        wide = max(map(len, self.names))
        head = f"at equal {self.budget}, each at its own best rate ({len(self.cells)} cells, {self.seeds} seeds):"
        lines = [
            f"  {self.place(i):>5}  {name:{wide}}  loss {self.loss[i]:.4f}  {100 * np.expm1(self.behind[i]):+.2f}%"
            for i, name in enumerate(self.names)
        ]
        noise = f"  differences below {100 * self.half:.2f}% are seed noise ({self.level:.0%}, all pairs together)"
        return [head, *lines, noise, *(f"  {w}" for w in self.warnings)]


def rank(table: Any, *, by: str | Sequence[str] = "schedule", budget: str = "tokens", level: float = 0.9) -> Ranking:
    """Rank variants of a recipe, each at its own best learning rate.

    The best rate of a variant at a size and length is the vertex of a parabola through its three lowest means over
    seeds. Losses at it are compared within runs of one size and seed, so that luck and text that variants share drop
    out, and averaged over sizes and budgets. Lengths between those trained are read off a parabola in log budget.

    Parameters
    ----------
    table : pandas.DataFrame, mapping of str to array, or path of CSV or Parquet
        Columns `loss`, `lr`, `tokens`, those of `by`, and `init_seed` or `data_seed` (two seeds at least); `width` or
        `params` where sizes differ; that of `budget`. Runs whose loss is no number diverged and are left out.
    by : str or sequence of str
        The columns that tell variants apart.
    budget : str
        What is equal: `tokens`, `flops`, `seconds` of one device, or any column that grows with a run's length.
    level : float
        Of all differences together.

    Raises
    ------
    RequestError
        The table lacks a column, or runs are not told apart.
    Refusal
        The runs cannot tell: which are missing.

    Examples
    --------
    >>> lr, seed, kind = (g.ravel() for g in np.meshgrid([0.01, 0.02, 0.04], [0, 1, 2], ["a", "b"]))
    >>> loss = 3 + 0.1 * np.log(lr / 0.02) ** 2 + 0.05 * (kind == "b") + 0.02 * seed + 0.001 * (seed * (kind == "b"))
    >>> found = rank({"schedule": kind, "lr": lr, "init_seed": seed, "tokens": 1e6 + 0 * lr, "loss": loss})
    >>> found.names, found.place(0), bool(found.better[0, 1])
    (('a', 'b'), '1', True)
    """
    checked_level(level)
    source, raw = load(table)
    names, trained = _trained(source, raw, (by,) if isinstance(by, str) else tuple(by), budget)
    sizes = list(dict.fromkeys(size for _, size in trained))
    cells: list[Cell] = []
    blocks: list[Array] = []  # of each size (V, S): mean over its budgets
    why = ""
    for size in sizes:
        if any((name, size) not in trained for name in names):
            why = why or f"size {size} was not trained under {next(n for n in names if (n, size) not in trained)}"
            continue
        several = [trained[name, size] for name in names]
        seeds = [s for s in several[0].seeds if all(s in v.seeds for v in several)]
        places = _shared_budgets(several)
        if not seeds or not len(places):
            what = "seed" if not seeds else budget
            why = why or f"size {size}: no {what} that all of {', '.join(names)} were trained at"
            continue
        values = np.array([v.at(places, seeds) for v in several])  # (V, budgets, S)
        blocks.append(values.mean(1))
        for j, place in enumerate(places):
            near = [int(np.abs(v.budgets - place).argmin()) for v in several]
            rates, edges = ([getattr(v, n)[k] for v, k in zip(several, near)] for n in ("lr", "edge"))
            middle = values[:, j].mean(1)
            cells.append(Cell(size, float(np.exp(place)), middle - middle.mean(), np.array(rates), np.array(edges)))
    if not cells:
        raise Refusal(f"{source}: {why}; nothing can be compared")
    freedom = sum((len(names) - 1) * (b.shape[1] - 1) for b in blocks)
    if not freedom:
        raise Refusal(f"{source}: one seed only, so what is luck is not known; add another init_seed to every variant")
    return _ranked(names, blocks, cells, freedom, budget, level)


@dataclass(frozen=True)
class _Trained:
    """A variant at a size: log losses (lengths, S) at its best rates."""

    budgets: Array  # log, ascending
    seeds: tuple[str, ...]
    losses: Array
    lr: Array  # (lengths,)
    edge: Array

    def at(self, places: Array, seeds: Sequence[str]) -> Array:
        """Log losses (budgets, seeds) at log budgets within those trained."""
        mine = self.losses[:, [self.seeds.index(s) for s in seeds]]
        return np.array([_weights(self.budgets, x) @ mine for x in places])


def _weights(x: Array, at: float) -> Array:
    """Of each point in a parabola's value at a place: through the nearest three points, or what there is."""
    near = np.argsort(np.abs(x - at), kind="stable")[:3]
    out = np.zeros(len(x))
    for i in near:
        others = [j for j in near if j != i]
        out[i] = np.prod((at - x[others]) / (x[i] - x[others]))
    return out


def _shared_budgets(several: list[_Trained]) -> Array:
    """Log budgets of the variant that starts latest, as far as all others reach."""
    latest = max(several, key=lambda v: float(v.budgets[0]))
    return latest.budgets[latest.budgets <= min(float(v.budgets[-1]) for v in several) + np.log(SAME_BUDGET)]


def _trained(
    source: str, raw: dict[str, Any], by: tuple[str, ...], budget: str
) -> tuple[list[str], dict[tuple[str, str], _Trained]]:
    """Names of the variants, and what was trained of each at each size."""
    for column in ("loss", "lr", "tokens", budget, *by):
        if column not in raw:
            raise RequestError(f"{source}: no column {column}; there are {', '.join(raw)}")
    if not set(PAIRED_SEEDS) & set(raw):
        raise RequestError(f"{source}: no column init_seed or data_seed; runs are compared seed by seed")
    try:
        loss, lr, spent = (np.asarray(raw[c], dtype=float) for c in ("loss", "lr", budget))
    except (TypeError, ValueError):
        raise RequestError(f"{source}: loss, lr and {budget} must be numbers") from None
    spent = to_levels(spent, SAME_BUDGET - 1)
    size = next((c for c in ("width", "params") if c in raw), None)
    runs: dict[tuple[str, str], dict[float, dict[float, dict[str, float]]]] = {}
    names: dict[str, None] = {}
    for i in range(len(loss)):
        name = ", ".join(str(raw[c][i]) for c in by)
        names[name] = None
        where = runs.setdefault((name, str(raw[size][i]) if size else "one size"), {})
        if not (np.isfinite(loss[i]) and loss[i] > 0):
            continue
        seed = "/".join(str(raw[c][i]) for c in PAIRED_SEEDS if c in raw)
        rates = where.setdefault(float(spent[i]), {}).setdefault(float(lr[i]), {})
        if seed in rates:
            raise RequestError(
                f"{source}: two runs of {name} at {budget} {spent[i]:g}, lr {lr[i]:g}, seed {seed}; name the column "
                "that tells them apart in by"
            )
        rates[seed] = float(np.log(loss[i]))
    if len(names) < 2:
        raise Refusal(f"{source}: only {', '.join(names) or 'nothing'} as {', '.join(by)}; nothing to compare")
    found = {key: _best(lengths) for key, lengths in runs.items() if any(lengths.values())}
    return list(names), {key: v for key, v in found.items() if v is not None}


def _best(lengths: dict[float, dict[float, dict[str, float]]]) -> _Trained | None:
    """Losses at the best rate of each length, of the seeds that were trained at all lengths."""
    seeds = sorted(set.intersection(*({s for r in rates.values() for s in r} for rates in lengths.values())))
    rows, rate, edge, budgets = [], [], [], []
    for spent, rates in sorted(lengths.items()):
        tried = np.array(sorted(r for r in rates if all(s in rates[r] for s in seeds)))
        if not len(tried) or not seeds:
            continue
        losses = np.array([[rates[r][s] for s in seeds] for r in tried])
        k, x = int(losses.mean(1).argmin()), np.log(tried)
        inside = 0 < k < len(tried) - 1
        at = _vertex(x[k - 1 : k + 2], losses.mean(1)[k - 1 : k + 2]) if inside else float(x[k])
        near = slice(k - 1, k + 2) if inside else slice(k, k + 1)
        rows.append(_weights(x[near], at) @ losses[near])
        rate.append(float(np.exp(at)))
        edge.append(0 if inside else -1 if k == 0 and len(tried) > 1 else 1)
        budgets.append(np.log(spent))
    if not rows:
        return None
    return _Trained(np.array(budgets), tuple(seeds), np.array(rows), np.array(rate), np.array(edge))


def _vertex(x: Array, y: Array) -> float:
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    bend = (right - left) / (x[2] - x[0])
    return float((x[0] + x[1]) / 2 - left / (2 * bend)) if bend > 0 else float(x[1])


def _ranked(
    names: list[str], blocks: list[Array], cells: list[Cell], freedom: int, budget: str, level: float
) -> Ranking:
    rest = 0.0
    for b in blocks:
        rest += float(((b - b.mean(0) - b.mean(1, keepdims=True) + b.mean()) ** 2).sum())
    sd = float(np.sqrt(rest / freedom))
    middle = np.mean([b.mean(1) for b in blocks], axis=0)
    error = sd * float(np.sqrt(sum(1 / b.shape[1] for b in blocks))) / len(blocks)
    half = _tukey(level, len(names), freedom) * error
    order = np.argsort(middle, kind="stable")
    edges = np.any([c.edge != 0 for c in cells], axis=0)
    apart = middle[order][None, :] - middle[order][:, None]  # of j over i
    better = (apart > half) & ~edges[order][None, :]
    ranks = np.c_[1 + better.sum(0), len(names) - better.sum(1)]
    warnings = []
    for i in order:
        sides = [int(c.edge[i]) for c in cells if c.edge[i]]
        if sides:
            side = max(set(sides), key=sides.count)
            rates = [float(c.lr[i]) for c in cells if c.edge[i] == side]
            least = min(rates) if side < 0 else max(rates)
            warnings.append(
                f"{names[i]}: in {len(sides)} of {len(cells)} cells its best rate is the "
                f"{'smallest' if side < 0 else 'largest'} tried ({least:g}), so it may be better than it looks; add lr "
                f"{least / 2 if side < 0 else 2 * least:g}"
            )
    return Ranking(
        budget=budget,
        names=tuple(names[i] for i in order),
        loss=np.exp(middle[order]),
        half=float(half),
        better=better,
        ranks=ranks,
        sd=sd,
        freedom=freedom,
        seeds=min(b.shape[1] for b in blocks),
        level=level,
        cells=tuple(Cell(c.size, c.budget, c.loss[order], c.lr[order], c.edge[order]) for c in cells),
        warnings=tuple(warnings),
    )


@functools.cache
def _tukey(level: float, variants: int, freedom: int) -> float:
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, variants, freedom))
