"""Figures of the laws: against their runs by size, length and compute, as far as the target."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal
from proxytrain.fit import Fit
from proxytrain.report import ink
from proxytrain.report.figures import LENGTHS, MOST_COLOURS, Picture, View
from proxytrain.report.row import Row

MUTED, INK, ACCENT = (ink.COLOURS[n][0] for n in ("muted", "ink", "accent"))


def fit(view: View) -> Picture | None:
    """Final loss against model size, a line a length with the interval of one run, and the target."""
    facts = view.facts
    main = [r for r in facts.done if r.schedule == facts.schedule]
    if not main:
        return None
    used = {r.id for r in facts.used}
    n_of = view.counted()
    lengths = _lengths(main, facts.target)
    most = max(n_of[r.id] for r in main)
    target_n = n_of.get("target") if facts.prediction or facts.truths else None

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.06 if size == "wide" else 0.11, right=0.985, top=0.93, bottom=0.115)
        low_n = min(n_of[r.id] for r in main)
        span = np.log(max(most, target_n or 0) / low_n) or 1.0
        right = max(most, target_n or 0) * np.exp((0.13 if size == "wide" else 0.24) * span)
        seen = [r.final for r in main]
        ends = []
        for length in lengths:
            goal = facts.target if facts.target and facts.target.tokens == length else None
            stop = max(most, target_n) if goal and target_n else most
            band = _law(view, low_n, stop, most, length)
            here = [r for r in main if r.tokens == length]
            if band is not None:
                x, y, down, up = band
                ax.fill_between(x, down, up, color=MUTED, alpha=0.13, lw=0, zorder=1)
                (law,) = ax.plot(x, y, color=MUTED, lw=1.2, zorder=2)
                ink.hover(law, f"the law at {ink.count(length)} tokens")
                seen += [down.min(), up.max()]
                ends.append((x[-1], y[-1], f"{ink.count(length)} tokens"))
            elif here:
                tip = max(here, key=lambda r: r.params)
                ends.append((n_of[tip.id], tip.final, f"{ink.count(length)} tokens"))
        fitted = [r for r in main if r.id in used or not facts.fit]
        for rows, how in ((fitted, {"linewidths": 0}), ([r for r in main if r not in fitted], {"facecolors": "none"})):
            if rows:
                colours = {"c" if rows is fitted else "edgecolors": [view.colour(r) for r in rows]}
                places = [n_of[r.id] for r in rows], [r.final for r in rows]
                dots = ax.scatter(*places, s=27, alpha=0.9, zorder=4, **colours, **how)
                ink.hover(dots, *(view.result(r) + ("" if rows is fitted else ", not fitted") for r in rows))
        if facts.target and target_n:
            seen += _target(view, ax, target_n)
        ink.log_axis(ax.xaxis, low_n / np.exp(0.04 * span), right, ink.count, 7 if size == "wide" else 5)
        seen = ink.sane(seen)
        height = np.log(max(seen) / min(seen)) or 0.1
        ink.log_axis(ax.yaxis, min(seen) / np.exp(0.09 * height), max(seen) * np.exp(0.03 * height), ink.plain)
        ax.set_xlabel("parameters" + facts.counted)
        ink.top_label(ax, "final loss, nats a token")
        _at_ends(ax, ends)

    p = facts.prediction
    goal = f" Predicted for the target: {p.loss:.4f}, between {p.low:.4f} and {p.high:.4f}." if p else ""
    if facts.came:
        goal += f" Trained: {', '.join(f'{x:.4f}' for x in facts.came)}."
    alt = f"Final loss against parameters of {len(main)} runs, with the fitted law at {len(lengths)} lengths.{goal}"
    caption = (
        "Dots: runs" + (" (hollow: not used by the fit)" if facts.fit and len(used) < len(main) else "") + ". "
        + (f"Lines: what the fit expects at each length; bands: {facts.fit.config.level:.0%} intervals of one new run. "
           if facts.fit else "No fit, so no lines. ")
        + ("Diamond with bar: the prediction. " if p else "")
        + ("Ring: the target as it was trained." if facts.came else "")
    )  # fmt: skip
    read = (
        "Dots on their line mean that the law holds inside the grid; how far the diamond lies to the right of the "
        "last dot is how far the law is stretched."
        if p
        else "Each dot is a finished run; along a line only the size of the model changes."
    )
    heading = "From the grid to the target" if facts.target else "Final loss against size"
    return Picture("fit", heading, read, caption.strip(), alt, view.draw("fit", alt, ("wide", "phone"), paint))


def lengths(view: View) -> Picture | None:
    """Final loss against tokens, a line a size, and the way to the target."""
    facts = view.facts
    main = [r for r in facts.done if r.schedule == facts.schedule]
    if len({r.tokens for r in main}) < 2:
        return None
    n_of = view.counted()
    goal = facts.target if facts.prediction or facts.truths else None
    least, most = (float(f(r.tokens for r in main)) for f in (min, max))
    right = max(most, float(goal.tokens) if goal else 0.0)
    sizes = {r.params: r for r in main}
    if len(sizes) > MOST_COLOURS:
        sizes = {n: sizes[n] for n in sorted(sizes)[:: -(-len(sizes) // MOST_COLOURS)]}

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.1, right=0.97, top=0.9, bottom=0.155)
        seen = [r.final for r in main]
        ways = [(view.colour(r), n_of[r.id], most, view.label(r), False) for r in sizes.values()]
        if goal:
            ways.append((ACCENT, n_of["target"], right, "the target's size", True))
        for colour, n, stop, what, banded in ways:
            along = _along(view, n, least, stop)
            if along is None:
                continue
            x, y, low, high = along
            (law,) = ax.plot(x, y, color=colour, lw=1.1, zorder=2)
            ink.hover(law, f"the law at {what}")
            if banded:
                ax.fill_between(x, low, high, color=colour, alpha=0.12, lw=0, zorder=1)
                seen += [low.min()]
        ends = [r.tokens for r in main], [r.final for r in main]
        dots = ax.scatter(*ends, s=18, c=[view.colour(r) for r in main], linewidths=0, zorder=4)
        ink.hover(dots, *map(view.result, main))
        if goal:
            seen += _target(view, ax, goal.tokens, short=True)
        seen = ink.sane(seen)
        span = np.log(max(seen) / min(seen)) or 0.1
        room = (right / least) ** 0.06
        ticks = sorted({r.tokens for r in main})
        ink.log_axis(ax.xaxis, least / room, right * room, ink.count, 6, ticks if len(ticks) <= LENGTHS else ())
        ink.log_axis(ax.yaxis, min(seen) / np.exp(0.14 * span), max(seen) * np.exp(0.1 * span), ink.plain)
        ax.set_xlabel("tokens trained on")
        ink.top_label(ax, "final loss, nats a token")

    alt = f"Final loss against tokens of {len(main)} runs of {len({r.params for r in main})} sizes, with the law."
    return Picture(
        "lengths",
        "Final loss against tokens",
        "Dots on their line mean that the law holds along training; where lines flatten, longer runs buy little.",
        "Dots: runs, coloured by size. "
        + ("Lines: what the fit expects of each size. " if facts.fit else "")
        + ("Red with its band: the target's size." if goal else ""),
        alt,
        view.draw("lengths", alt, ("half",), paint),
    )


def line(view: View) -> Picture | None:
    """Loss against the one variable that the law knows, with the law, its interval, and the target."""
    facts = view.facts
    if not facts.fit:
        return None
    fit, only = facts.fit, str(facts.fit.data.only)
    seen, loss = np.array(fit.runs[only]), np.array(fit.runs["loss"])
    goal = (fit.data.target or {}).get(only)
    if facts.target and facts.prediction:
        n, d = view.counted()["target"], float(facts.target.tokens)
        goal = {"params": n, "tokens": d, "flops": 6 * n * d}[only]

    most = max(float(goal or 0), float(seen.max()) * min(float(np.exp(fit.farthest)), 30.0))

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.06 if size == "wide" else 0.11, right=0.985, top=0.93, bottom=0.115)
        losses = [loss.min(), loss.max()]
        for stop in (most, float(seen.max())):
            x = np.geomspace(seen.min(), stop, 80)
            try:
                at: dict[str, Any] = {only: x}
                p = fit.predict(**at)
            except Refusal:
                continue
            ax.fill_between(x, p.low, p.high, color=MUTED, alpha=0.13, lw=0, zorder=1)
            ax.plot(x, p.loss, color=MUTED, lw=1.2, zorder=2)
            losses += [p.low.min(), p.high.max()]
            break
        ax.scatter(seen, loss, s=27, color=INK, linewidths=0, alpha=0.9, zorder=4)
        if goal:
            losses += _target(view, ax, goal)
        form = ink.power_of_ten if only == "flops" else ink.count
        ink.log_axis(ax.xaxis, seen.min() / 1.1, most * 1.1, form, 7 if size == "wide" else 5)
        span = np.log(max(losses) / min(losses)) or 0.1
        ink.log_axis(ax.yaxis, min(losses) / np.exp(0.09 * span), max(losses) * np.exp(0.03 * span), ink.plain)
        ax.set_xlabel(only)
        ink.top_label(ax, "final loss, nats a token")

    alt = f"Final loss against {only} of {len(seen)} runs, with the fitted law."
    return Picture(
        "fit",
        f"Final loss against {only}",
        "Dots on their line mean that the law holds among these runs.",
        f"Dots: runs. Line: what the fit expects; band: {fit.config.level:.0%} intervals of one new run."
        + (" Diamond with bar: the prediction." if facts.prediction else ""),
        alt,
        view.draw("fit", alt, ("wide", "phone"), paint),
    )


def compute(view: View) -> Picture | None:
    """Loss against training FLOPs: the way of each run, its end, and the target."""
    facts = view.facts
    main = [r for r in facts.done if r.schedule == facts.schedule]
    if not main:
        return None

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.1, right=0.97, top=0.9, bottom=0.155)
        low = min(r.flops for r in main) / 2.5
        seen = [r.final for r in main]
        for line in facts.lines:
            r = line.row
            if r.schedule == facts.schedule and not line.start and r.loss is not None:
                x = line.tokens * r.flops / r.tokens
                keep = x >= low
                (way,) = ax.plot(x[keep][::2], line.loss[keep][::2], color=view.colour(r), lw=0.8, alpha=0.35, zorder=2)
                ink.hover(way, view.name(r))
        cells: dict[int, dict[float, list[float]]] = {}
        for r in main:
            cells.setdefault(r.params, {}).setdefault(r.flops, []).append(r.final)
        dots = [r.flops for r in main], [r.final for r in main]
        ink.hover(
            ax.scatter(*dots, s=18, c=[view.colour(r) for r in main], linewidths=0, zorder=4), *map(view.result, main)
        )
        for params, cell in cells.items() if len(cells) <= MOST_COLOURS else ():
            colour = view.colour(next(r for r in main if r.params == params))
            ends = sorted(cell)
            ax.plot(ends, [float(np.mean(cell[f])) for f in ends], color=colour, lw=1.2, zorder=3)
        right = max(r.flops for r in main)
        best = frontier(facts.fit, low * 2.5, max(right, facts.target.flops if facts.target else right))
        if best is not None:
            (edge,) = ax.plot(best[0], best[1], color=INK, lw=1.4, ls=(0, (4, 2)), zorder=3.5)
            ink.hover(edge, "frontier: the best that the fit expects of any size")
            seen += [best[1].min()]
        if facts.target:
            seen += _target(view, ax, facts.target.flops, short=True, above=True)
            if facts.prediction or facts.truths:
                right = max(right, facts.target.flops)
        seen = ink.sane(seen)
        span = np.log(max(seen) / min(seen)) or 0.1
        ink.log_axis(ax.xaxis, low, right * 1.5, ink.power_of_ten, 5)
        ink.log_axis(ax.yaxis, min(seen) / np.exp(0.14 * span), max(seen) * np.exp(0.1 * span), ink.plain)
        ax.set_xlabel("training FLOPs")
        ink.top_label(ax, "loss, nats a token")

    goal = f", with the target at {ink.power_of_ten(facts.target.flops)} FLOPs" if facts.target else ""
    alt = f"Loss against training FLOPs of {len(main)} runs{goal}."
    return Picture(
        "compute",
        "Loss against compute",
        "The lower left edge of all lines is the best that this grid buys with a given compute.",
        ("Pale: training loss on the way. Strong: final" if facts.lines else "Final")
        + " losses of one size at all its lengths, mean over seeds. "
        + ("Dashed: the best that the fit expects of any size at this compute (6 N D). " if facts.fit else "")
        + "Colours as above"
        + (", the target in red." if facts.target else "."),
        alt,
        view.draw("compute", alt, ("half",), paint),
    )


def frontier(fit: Fit | None, low: float, high: float) -> tuple[Array, Array] | None:
    """FLOPs (n,) and the least loss (n,) that the fit expects of any size; None where it does not say."""
    if fit is None:
        return None
    flops = np.geomspace(low, high, 40)
    ratio = np.geomspace(0.1, 1e4, 120)
    params = np.sqrt(flops[:, None] / 6 / ratio)
    columns = {"params": params.ravel(), "tokens": (params * ratio).ravel(), "flops": np.repeat(flops, len(ratio))}
    loss = np.exp(fit.predictor.centre(columns | {"unique_tokens": columns["tokens"]})[0])
    loss = np.where(np.isfinite(loss), loss, np.inf).reshape(params.shape)
    best = loss.argmin(1)
    known = np.isfinite(loss.min(1)) & (best > 0) & (best < len(ratio) - 1)
    return (flops[known], loss.min(1)[known]) if known.sum() > 1 else None


def _lengths(main: list[Row], target: Row | None) -> list[int]:
    """Lengths that several sizes were trained to, thinned evenly; the target's is kept."""
    sizes: dict[int, set[int]] = {}
    for r in main:
        sizes.setdefault(r.tokens, set()).add(r.params)
    found = sorted(t for t, n in sizes.items() if len(n) > 1)
    if not found:  # a scatter: a few of its lengths
        found = np.quantile(list(sizes), [0.05, 0.35, 0.65, 0.95], method="nearest").tolist()
    if len(found) > LENGTHS:
        found = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, LENGTHS).astype(int))]
    return sorted({*found, *([target.tokens] if target else [])})


def _law(view: View, low: float, high: float, most: float, length: int) -> tuple[Array, ...] | None:
    """Law and interval along N; only as far as the fit answers."""
    if not view.facts.fit:
        return None
    for stop in (high, most):
        x = np.geomspace(low, stop, 48)
        try:
            p = view.facts.fit.predict(params=x, tokens=float(length))
        except Refusal:
            continue
        return x, p.loss, p.low, p.high
    return None


def _along(view: View, n: float, low: float, high: float) -> tuple[Array, ...] | None:
    """Law and interval along tokens at N; None where the fit does not answer."""
    if not view.facts.fit:
        return None
    x = np.geomspace(low, high, 48)
    try:
        p = view.facts.fit.predict(params=n, tokens=x)
    except Refusal:
        return None
    return x, p.loss, p.low, p.high


def _target(view: View, ax: Any, x: float, *, short: bool = False, above: bool = False) -> list[float]:
    """The prediction with its bar and, below or `above` it, words; and the truth. Returns the losses drawn."""
    facts, seen = view.facts, []
    p = facts.prediction
    if p:
        ax.plot([x, x], [p.low, p.high], color=ACCENT, lw=2, zorder=5, solid_capstyle="butt")
        (diamond,) = ax.plot(x, p.loss, "D", ms=6.5, color=ACCENT, mec="none", zorder=6)
        ink.hover(diamond, f"the target: predicted {p.loss:.4f}, between {p.low:.4f} and {p.high:.4f}")
        text = f"predicted {p.loss:.3f}" if short else f"target, predicted {p.loss:.3f} [{p.low:.3f}, {p.high:.3f}]"
        end, away, side = (p.high, 6, "bottom") if above else (p.low, -6, "top")
        ax.annotate(text, (x, end), xytext=(2, away), textcoords="offset points", ha="right", va=side,
                    color=ACCENT, fontsize=ink.SMALL)  # fmt: skip
        seen += [p.low, p.high]
    for loss in facts.came:
        (ring,) = ax.plot(x, loss, "o", ms=9, color="none", mec=INK, mew=1.6, zorder=7)
        ink.hover(ring, f"the target as it was trained: {loss:.4f}")
    if facts.came and not short:
        top, each = max([*facts.came, p.high if p else 0.0]), ", ".join(f"{loss:.3f}" for loss in facts.came)
        ax.annotate(f"trained {each}", (x, top), xytext=(2, 5), textcoords="offset points", ha="right", va="bottom",
                    color=INK, fontsize=ink.SMALL)  # fmt: skip
    seen += facts.came
    return seen


def _at_ends(ax: Any, ends: list[tuple[float, float, str]]) -> None:
    """Names at the right ends of lines, pushed apart where they would touch."""
    ends = sorted(ends, key=lambda e: e[1])
    if not ends:
        return
    scale = 72.0 / ax.figure.dpi
    pixels = ax.transData.transform([(x, y) for x, y, _ in ends]) * scale
    box = ax.get_window_extent()
    placed = ink.spread(pixels[:, 1], 12.5, box.y0 * scale, box.y1 * scale)
    for (x, y, text), at, own in zip(ends, placed, pixels[:, 1]):
        ax.annotate(text, (x, y), xytext=(9, at - own), textcoords="offset points", color=MUTED,
                    fontsize=ink.SMALL, va="center")  # fmt: skip
