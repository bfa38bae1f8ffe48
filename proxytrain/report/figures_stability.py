"""Figures of stability, where rates span decades: losses and sensitivities of each change, and growing logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxytrain.analysis.stability import DANGER
from proxytrain.report import ink
from proxytrain.report.facts import Facts
from proxytrain.report.figures import Picture, View
from proxytrain.report.stability import Group, Stability, crossing, interval

MUTED, INK, ACCENT = (ink.COLOURS[n][0] for n in ("muted", "ink", "accent"))
BEYOND = 1000.0  # the largest size over the farthest that is drawn


def interventions(view: View) -> Picture | None:
    """Final loss against rate at one size, a line a way of training."""
    found = _of(view)
    if not found or len(found.groups) < 2:
        return None
    n = found.size
    groups = [g for g in found.groups if n in g.sensitivity]

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.09, right=0.69 if size == "wide" else 0.55, top=0.92, bottom=0.14)
        labels, seen = [], []
        for i, g in enumerate(groups):
            colour = _colour(i)
            rates = sorted({s.row.lr for s in g.runs[n]})
            losses = [float(np.mean([s.scored for s in g.runs[n] if s.row.lr == r])) for r in rates]
            (line,) = ax.plot(rates, losses, color=colour, lw=2.2 if not i else 1.3, zorder=3 if not i else 2)
            ink.hover(line, f"{g.name}, mean over seeds")
            for lost in (False, True):
                some = [s for s in g.runs[n] if (s.row.loss is None) == lost]
                if some:
                    dots = ax.scatter(
                        [s.row.lr for s in some], [s.scored for s in some], s=26 if lost else 14,
                        marker="x" if lost else "o", color=colour, lw=1.4 if lost else 0, zorder=4,
                    )  # fmt: skip
                    ink.hover(dots, *(f"{view.name(s.row)}: diverged" if lost else view.result(s.row) for s in some))
            labels.append((losses[-1], g.name, colour))
            seen += [(r, s) for r, s in zip(rates, losses)]
        rates, losses = (sorted({s[k] for s in seen}) for k in (0, 1))
        ink.log_axis(ax.xaxis, rates[0] / 1.2, rates[-1] * 1.2, lambda v: f"{v:.3g}", 7, rates)
        ink.log_axis(ax.yaxis, losses[0] * 0.97, losses[-1] * 1.04, ink.plain)
        ax.set_xlabel("peak base learning rate")
        ink.top_label(ax, "final loss, nats a token; at most the initial one")
        ink.end_labels(ax, labels)

    where = found.label(n)
    alt = f"Final loss against peak learning rate at {where}, for {len(groups)} ways of training."
    return Picture(
        "interventions",
        "Loss against learning rate, change by change",
        "What stays low over many rates is stable; what rises early is tamed by the changes that keep it low.",
        f"Runs of {ink.count(found.tokens)} tokens at {where}. Lines: mean over seeds; a run that diverged (cross), or "
        "ended above its initial loss, is shown at its initial loss. Thick: the way from which each other differs in "
        "what its name says.",
        alt,
        view.draw("interventions", alt, ("wide", "phone"), paint),
    )


def sensitivities(view: View) -> Picture | None:
    """LR sensitivity of each way of training and size, with its interval over seeds."""
    found = _of(view)
    if not found:
        return None
    groups = [g for g in found.groups if g.sensitivity][::-1]
    sizes = sorted({n for g in groups for n in g.sensitivity})
    hues = {n: view.colour(g.runs[n][0].row) for g in groups for n in g.sensitivity}

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.43 if len(groups) > 1 else 0.27, right=0.97, top=0.9, bottom=0.155)
        for row, g in enumerate(groups):
            for n, s in g.sensitivity.items():
                y = row + (0.5 - (sizes.index(n) + 0.5) / len(sizes)) * -0.6
                colour = hues[n]
                if not np.isnan(s.low):
                    ax.plot([max(s.low, 0), s.high], [y, y], color=colour, lw=4, alpha=0.3, zorder=2)
                (dot,) = ax.plot(s.value, y, "o", ms=6, color=colour, mec="none", zorder=3)
                ink.hover(dot, f"{g.name}, {found.label(n)}: {interval(s)}, best at {s.best_lr:g}")
        ax.set_yticks(range(len(groups)), [g.name.replace(" and ", "\nand ") for g in groups])
        ax.tick_params(axis="y", labelsize=ink.SMALL - 1)
        ax.set_ylim(-0.6, len(groups) - 0.4)
        ax.set_xlim(left=0)
        ax.set_xlabel("LR sensitivity, nats")
        named = ", ".join(found.label(n).removeprefix("width ") for n in sizes)
        ink.top_label(ax, f"sizes from below: {named}" if len(sizes) > 1 else found.label(sizes[0]))

    each = [(g, n, s) for g in groups[::-1] for n, s in g.sensitivity.items()]
    alt = "LR sensitivity: " + "; ".join(f"{g.name}, {found.label(n)} {interval(s)}" for g, n, s in each)
    return Picture(
        "stability",
        "Sensitivity to the learning rate",
        "Further left is more stable; a sensitivity that grows with size will be worse at the target.",
        "How far above the loss at the best rate runs end, averaged over the rates tried; one that diverged counts "
        "with its initial loss (2309.14322). Bars: 90% interval over seeds.",
        alt,
        view.draw("stability", alt, ("half",), paint),
    )


def logits(view: View) -> Picture | None:
    """Largest attention logit against size in the common setting, a colour a rate, extrapolated to the danger line."""
    known = _known(view)
    return _logits(view, known[0], "logits") if known else None


def largest_logits(view: View) -> Picture | None:
    """The same of the way of training with the largest logits, where it is another."""
    known = _known(view)
    most = max(known, key=lambda g: max(_all_logits(g))) if known else None
    return _logits(view, most, "logits-largest") if most and most is not known[0] else None


def _logits(view: View, g: Group, key: str) -> Picture:
    rates = [lr for lr in g.rates if g.logits(lr)]
    sizes = sorted({float(s.row.params) for lr in rates for s in g.logits(lr)})
    ends = [growth.crossing().params for growth in g.growth.values()]
    far = min(BEYOND * sizes[-1], max([10.0 * sizes[-1], *(2 * e for e in ends if np.isfinite(e))]))
    every = [x for known in _known(view) for x in _all_logits(known)]
    low, high = 0.7 * min(every), max(10 * DANGER, 2 * max(every))  # of all such figures, so that they compare

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.14, right=0.82, top=0.9, bottom=0.155)
        labels = []
        for i, lr in enumerate(rates):
            colour, runs = _colour(i + 1), g.logits(lr)
            places = [s.row.params for s in runs], [s.logit for s in runs]
            dots = ax.scatter(*places, s=18, color=colour, lw=0, zorder=3)
            ink.hover(dots, *(f"{view.name(s.row)}: largest logit {s.logit:.3g}" for s in runs))
            last = runs[-1].logit or low
            if lr in g.growth:
                x = np.geomspace(g.growth[lr].smallest, far, 100)
                middle, least, most = g.growth[lr].predict(x)
                ax.fill_between(x, least, most, color=colour, alpha=0.1, lw=0, zorder=1)
                (line,) = ax.plot(x, middle, color=colour, lw=1.3, zorder=2)
                ink.hover(line, f"lr {lr:g}: {crossing(g.growth[lr])}")
                last = float(middle[-1])
            labels.append((min(max(last, low), high), f"lr {lr:g}", colour))
        ax.axhline(DANGER, color=ACCENT, lw=1.2, ls=(0, (4, 3)), zorder=1)
        ink.log_axis(ax.xaxis, sizes[0] / 1.3, far * 1.1, ink.count, 5)
        ink.log_axis(ax.yaxis, low, high, lambda v: f"{v:,g}", 6)
        ax.set_xlabel("parameters")
        ink.top_label(ax, "largest attention logit")
        ink.end_labels(ax, labels)

    words = "; ".join(f"lr {lr:g}: {crossing(growth)}" for lr, growth in g.growth.items())
    alt = f"Largest attention logit against size, {g.name}. {words or 'Too few sizes for a line.'}"
    return Picture(
        key,
        f"Attention logits, {g.name}",
        f"Lines that rise to the dashed one ({DANGER:,.0f}) say at which size and rate training will break.",
        "Dots: the largest logit, scaled and before the softmax, of any block at any time that was looked at. "
        + (
            f"Lines: quadratics in log size, with the 90% interval of one run (2309.14322). {words}."
            if words
            else f"No lines: {next(iter(g.refused), '')}."
        ),
        alt,
        view.draw(key, alt, ("half",), paint),
    )


def _known(view: View) -> list[Group]:
    """Groups whose logits are known at two sizes or more."""
    found = _of(view)
    groups = found.groups if found else []
    return [g for g in groups if len({s.row.params for lr in g.rates for s in g.logits(lr)}) > 1]


def _all_logits(g: Group) -> list[float]:
    return [s.logit for lr in g.rates for s in g.logits(lr) if s.logit]


def _of(view: View) -> Stability | None:
    assert isinstance(view.facts, Facts)
    return view.facts.stability


def _colour(i: int) -> str:
    return INK if not i else ink.HUES[(i - 1) % len(ink.HUES)][0]
