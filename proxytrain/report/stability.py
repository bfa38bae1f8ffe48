"""Runs whose rates span decades: how sensitive each way of training is to the rate, how its attention logits grow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxytrain.analysis.stability import (
    DANGER,
    LEAST_RATES,
    LEAST_SPAN,
    LogitGrowth,
    Sensitivity,
    difference,
    fit_logits,
    loss_spikes,
    lr_sensitivity,
)
from proxytrain.errors import Refusal, RequestError
from proxytrain.report import ink
from proxytrain.report.row import Row
from proxytrain.store.curves import RunCurve
from proxytrain.store.store import Store

Interval = tuple[float, float, float]  # value, low, high
Size = tuple[int, int]  # width, depth: what is changed may change the number of parameters a little
COMMON = "common setting"


@dataclass(frozen=True)
class Seen:
    """A run with what its curve and its telemetry say."""

    row: Row
    initial: float  # loss before training
    logit: float | None  # largest attention logit of any block at any time that was looked at
    spikes: int
    under: float | None  # largest share of a kind of weights under eps, when last looked at; embeddings apart

    @property
    def scored(self) -> float:
        """min(final loss, initial loss); the initial one of a run that diverged."""
        return min(self.row.final, self.initial) if self.row.loss is not None else self.initial


@dataclass(frozen=True)
class Group:
    """Runs that differ in size, rate and seed only."""

    name: str  # what sets them apart from the common setting
    runs: dict[Size, list[Seen]]
    sensitivity: dict[Size, Sensitivity]  # where rates span a decade
    change: dict[Size, Interval]  # of it against the first group, paired by seed
    growth: dict[float, LogitGrowth]  # by rate
    refused: list[str]  # why there is no growth at some rates

    def logits(self, lr: float) -> list[Seen]:
        """Runs of a rate, by size, whose largest attention logit is known."""
        return [s for n in sorted(self.runs) for s in self.runs[n] if s.row.lr == lr and s.logit]

    @property
    def rates(self) -> list[float]:
        return sorted({s.row.lr for runs in self.runs.values() for s in runs})


@dataclass(frozen=True)
class Stability:
    """Groups of one length; the first is the common setting, from which each other differs."""

    groups: list[Group]
    tokens: int

    @property
    def size(self) -> Size:
        """The size at which most groups tried rates over decades, the largest of such."""
        found = Counter(n for g in self.groups for n in g.sensitivity)
        return max(found, key=lambda n: (found[n], n))

    def label(self, size: Size) -> str:
        depths = {depth for g in self.groups for _, depth in g.runs}
        return f"width {size[0]}" if len(depths) == 1 else f"{size[0]} × {size[1]}"


Kind = tuple[str, tuple[tuple[str, str], ...]]  # schedule, and what else sets runs apart


def stability(rows: list[Row], store: Store, vocab: int, missing: list[tuple[str, str]]) -> Stability | None:
    """Of the length at which most was tried; None where no rates span a decade. Refusals are added to `missing`; runs
    whose curves cannot be read are left out.

    What most groups have is common; of what as many have, the one whose rows come first.
    """
    cells: dict[tuple[int, Kind, tuple[int, int]], list[Row]] = {}
    for r in rows:
        if r.status in ("done", "diverged"):
            cells.setdefault((r.tokens, (r.schedule, r.other), (r.width, r.depth)), []).append(r)
    wide = [key for key, found in cells.items() if _spans({r.lr for r in found})]
    if not wide:
        return None
    tokens = Counter(key[0] for key in wide).most_common(1)[0][0]
    kinds = list(dict.fromkeys(key[1] for key in wide if key[0] == tokens))
    names = _names(kinds)
    groups: list[Group] = []
    for kind in sorted(kinds, key=lambda k: (names[k] != COMMON, names[k].count("="))):
        runs = {
            n: [s for r in found if (s := _seen(r, store, vocab))]
            for (t, k, n), found in sorted(cells.items(), key=lambda c: c[0][2])
            if (t, k) == (tokens, kind)
        }
        groups.append(_group(names[kind], runs, groups[0] if groups else None, missing))
    return Stability(groups, tokens)


def _group(name: str, runs: dict[Size, list[Seen]], first: Group | None, missing: list[tuple[str, str]]) -> Group:
    group = Group(name, runs, {}, {}, {}, refused=[])
    for n, found in runs.items():
        if not _spans({s.row.lr for s in found}):
            continue
        columns = ([s.row.lr for s in found], [s.row.final for s in found], [s.initial for s in found])
        try:
            group.sensitivity[n] = lr_sensitivity(*columns, [s.row.seeds for s in found])
            if first and n in first.sensitivity:
                group.change[n] = difference(group.sensitivity[n], first.sensitivity[n])
        except (Refusal, RequestError) as error:
            missing.append((f"LR sensitivity, {name}", str(error)))
    for lr in group.rates:
        known = [s for s in group.logits(lr) if s.row.loss is not None]
        try:
            group.growth[lr] = fit_logits([s.row.params for s in known], [s.logit or 0.0 for s in known])
        except Refusal as error:
            group.refused.append(str(error))
    return group


def _spans(rates: Iterable[float]) -> bool:
    tried = sorted(rates)
    return len(tried) >= LEAST_RATES and tried[-1] >= LEAST_SPAN * tried[0] * (1 - 1e-9)


def foresee(rows: list[Row], target: Row, store: Store) -> LogitGrowth | None:
    """Growth of the largest attention logit over runs that differ from the target in size, seed and length only, at the
    longest length that can tell; None where none can.
    """
    setting = (target.schedule, target.lr, target.other, target.depth)
    alike = [r for r in rows if r.status == "done" and (r.schedule, r.lr, r.other, r.depth) == setting]
    for tokens in sorted({r.tokens for r in alike}, reverse=True):
        seen = []
        for r in (r for r in alike if r.tokens == tokens):
            with suppress(RequestError):
                seen.append((r.params, largest_logit(store.curve(r.id))))
        known = [(n, logit) for n, logit in seen if logit]
        with suppress(Refusal):
            return fit_logits([n for n, _ in known], [logit for _, logit in known])
    return None


def _seen(row: Row, store: Store, vocab: int) -> Seen | None:
    try:
        curve = store.curve(row.id)
    except RequestError:
        return None
    initial = float(curve.loss[0]) if len(curve.loss) else math.log(vocab)
    return Seen(row, initial, largest_logit(curve), len(loss_spikes(curve.loss)), _under_eps(curve))


def largest_logit(curve: RunCurve) -> float | None:
    """The largest attention logit of any block at any time that was looked at; None where none was."""
    found = [v for name, v in curve.telemetry.items() if name.startswith("attention_logit_max.")]
    values = np.concatenate(found) if found else np.empty(0)
    values = values[np.isfinite(values)]
    return float(values.max()) if len(values) else None


def _under_eps(curve: RunCurve) -> float | None:
    """Embeddings do not count: rare tokens have no gradient."""
    kinds = {name.partition(".")[2]: v for name, v in curve.telemetry.items() if name.startswith("under_eps.")}
    last = (float(v[-1]) for kind, v in kinds.items() if kind != "embedding")
    return max((v for v in last if math.isfinite(v)), default=None)


def _names(kinds: list[Kind]) -> dict[Kind, str]:
    """What sets each kind apart from what most have; a key without a value stands at its default."""
    flat = {k: {"schedule": k[0], **dict(k[1])} for k in kinds}
    keys = list(dict.fromkeys(key for f in flat.values() for key in f))
    usual = {key: Counter(f.get(key) for f in flat.values()).most_common(1)[0][0] for key in keys}
    out = {}
    for kind, f in flat.items():
        own = [f"{_short(k)}={f[k]}" for k in keys if k in f and f[k] != usual[k]]
        out[kind] = " and ".join(own) or COMMON
    return out


def _short(key: str) -> str:
    return key.removesuffix(".name").rpartition(".")[2]


def interval(value: Interval | Sensitivity, sign: bool = False) -> str:
    """A value with its interval, where it has one."""
    middle, low, high = (value.value, value.low, value.high) if isinstance(value, Sensitivity) else value
    form = "+.3f" if sign else ".3f"
    ends = "" if math.isnan(low) else f" ({low:{form}} to {high:{form}})"
    return f"{middle:{form}}{ends}".replace("-", "−")


def grounds(found: Stability) -> list[tuple[str, str]]:
    """The answer in a few lines: name and text."""
    n, first = found.size, found.groups[0]
    lines = []
    if n in first.sensitivity:
        text = f"{found.label(n)}: {interval(first.sensitivity[n])} nats above the best rate on average"
        others = [(g.change[n], g) for g in found.groups[1:] if n in g.change]
        sure = [(c, g) for c, g in others if c[1] > 0 or c[2] < 0]
        text += "".join(f"; {interval(c, sign=True)} with {g.name}" for c, g in sorted(sure, key=lambda x: -x[0][0]))
        if noise := [g.name for c, g in others if c[1] <= 0 <= c[2]]:
            text += f"; no difference beyond seed noise: {', '.join(noise)}"
        if single := [g.name for c, g in others if math.isnan(c[1])]:
            text += f"; from one seed, which is no evidence (init_seed: [0, 1, 2]): {', '.join(single)}"
        lines.append(("LR sensitivity", text))
    soonest = []
    for g in found.groups:
        if g.growth:
            lr = min(g.growth, key=lambda r: (g.growth[r].crossing().low, g.growth[r].crossing().params))
            soonest.append(f"{g.name}, lr {lr:g}: {crossing(g.growth[lr])}")
    return [*lines, ("Attention logits", "; ".join(soonest) or _why(found))]


def _why(found: Stability) -> str:
    if not any(s.logit for g in found.groups for runs in g.runs.values() for s in runs):
        return "not known: these runs were trained with train.telemetry_every=0, or by a version without telemetry"
    return f"their growth is not known: {next(why for g in found.groups for why in g.refused)}"


def crossing(growth: LogitGrowth) -> str:
    """Where the largest attention logit gets dangerous, in words."""
    c, line = growth.crossing(DANGER), f"as params^{growth.exponent:.2f}".replace("-", "−")
    far = f"{ink.count(c.reach)} parameters"
    if math.isinf(c.low):
        return f"{line}, no crossing of {DANGER:,.0f} up to {far}"
    low = f"{'below ' if c.low <= growth.smallest else ''}{ink.count(c.low)}"
    if math.isinf(c.params):
        return f"{line}, no crossing of {DANGER:,.0f} up to {far}, but possible from {low} on ({c.level:.0%})"
    high = f"to {ink.count(c.high)}" if math.isfinite(c.high) else "or more"
    return f"{line}, crossing {DANGER:,.0f} at {ink.count(c.params)} parameters ({c.level:.0%}: {low} {high})"


def table(found: Stability) -> tuple[list[str], list[list[tuple[str, float | None]]]]:
    """Heads and rows of cells (text, number to sort by): a row a group and size."""
    heads = [
        "what",
        "size",
        "LR sensitivity",
        f"against {COMMON}",
        "best lr",
        "lost",
        "largest logit",
        "under eps",
        "spikes",
    ]
    rows: list[list[tuple[str, float | None]]] = []
    for g in found.groups:
        for n, s in g.sensitivity.items():
            runs = g.runs[n]
            logits = [x.logit for x in runs if x.logit is not None]
            under = max((x.under for x in runs if x.under is not None), default=None)
            spikes: Any = sum(x.spikes for x in runs)
            change = g.change.get(n)
            rows.append(
                [
                    (g.name, None),
                    (found.label(n), n[0] * n[1]),
                    (interval(s), s.value),
                    (interval(change, sign=True) if change else "", change[0] if change else None),
                    (f"{s.best_lr:g}", s.best_lr),
                    (f"{s.lost} of {len(runs)}", s.lost),
                    (f"{max(logits):.3g}" if logits else "not seen", max(logits, default=None)),
                    ("" if under is None else f"{under:.1%}", under),
                    (str(spikes), spikes),
                ]
            )
    return heads, rows
