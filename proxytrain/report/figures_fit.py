"""Figures of the answer: the law against its runs, loss against compute, residuals, backtest, seed spread."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxytrain.errors import Refusal
from proxytrain.fit import Fit
from proxytrain.report import ink
from proxytrain.report.facts import Row
from proxytrain.report.figures import MOST_COLOURS, Picture, View

LENGTHS = 8  # lines of the law at most
HELD = 300  # bars of the backtest at most
FEW_HELD = 8  # with fewer there is no curve of coverage
MUTED, INK, ACCENT, MISS = (ink.COLOURS[n][0] for n in ("muted", "ink", "accent", "miss"))


def fit(view: View) -> Picture | None:
    """Final loss against model size, a line a length with the interval of one run, and the target."""
    facts = view.facts
    main = [r for r in facts.done if r.schedule == facts.schedule]
    if not main:
        return None
    used = {r.id for r in facts.used}
    n_of = _counted(view)
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
            seen += _target(view, ax, target_n, left=True)
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
    n_of = _counted(view)
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
            seen += _target(view, ax, goal.tokens, left=True, short=True)
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
    """Loss against the one variable of a table, with the law, its interval, and the target."""
    facts = view.facts
    if not facts.fit:
        return None
    fit, only = facts.fit, str(facts.fit.data["only"])
    seen, loss = np.array(fit.runs[only]), np.array(fit.runs["loss"])
    goal = fit.data.get("target", {}).get(only)

    def place(x: np.ndarray) -> dict[str, Any]:
        return {only: x}

    most = max(float(goal or 0), float(seen.max()) * min(float(np.exp(fit.farthest)), 30.0))

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.06 if size == "wide" else 0.11, right=0.985, top=0.93, bottom=0.115)
        losses = [loss.min(), loss.max()]
        for stop in (most, float(seen.max())):
            x = np.geomspace(seen.min(), stop, 80)
            try:
                p = fit.predict(**place(x))
            except Refusal:
                continue
            ax.fill_between(x, p.low, p.high, color=MUTED, alpha=0.13, lw=0, zorder=1)
            ax.plot(x, p.loss, color=MUTED, lw=1.2, zorder=2)
            losses += [p.low.min(), p.high.max()]
            break
        ax.scatter(seen, loss, s=27, color=INK, linewidths=0, alpha=0.9, zorder=4)
        if goal:
            losses += _target(view, ax, goal, left=True)
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
        "Dots on their line mean that the law holds inside the table.",
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
            seen += _target(view, ax, facts.target.flops, left=True, short=True)
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


def residuals(view: View) -> Picture | None:
    """What the law misses, against size and against length."""
    facts = view.facts
    if not facts.fit or not facts.used:
        return None
    off = 100 * np.expm1(np.array(facts.fit.runs["residual"], dtype=float))
    luck = 100 * facts.fit.noise.run
    n_of, only = _counted(view), facts.fit.data["only"]

    def paint(axes: list[Any], size: str) -> None:
        axes[0].figure.subplots_adjust(left=0.115, right=0.97, top=0.9, bottom=0.155, wspace=0.1)
        top = max(float(np.abs(off).max()), luck) * 1.15
        xs = [[n_of[r.id] for r in facts.used], [float(r.tokens) for r in facts.used]]
        if only:
            xs = [list(facts.fit.runs[only])] if facts.fit else []
        for ax, x, words in zip(axes, xs, (only,) if only else ("parameters", "tokens")):
            ticks = sorted(set(x)) if words == "tokens" and len(set(x)) <= LENGTHS else ()
            ax.axhspan(-luck, luck, color=MUTED, alpha=0.14, lw=0)
            ax.axhline(0, color=MUTED, lw=0.8)
            dots = ax.scatter(x, off, s=21, c=[view.colour(row) for row in facts.used], linewidths=0, alpha=0.85)
            ink.hover(dots, *(f"{view.result(r)}, {o:+.2f}% off the law" for r, o in zip(facts.used, off)))
            room = (max(x) / min(x)) ** 0.08 * 1.02
            ink.log_axis(ax.xaxis, min(x) / room, max(x) * room, ink.count, 4, ticks)
            ax.set_ylim(-top, top)
            ax.set_xlabel(words)
        _percent(axes[0])
        for ax in axes[1:]:
            ax.tick_params(labelleft=False)
        ink.top_label(axes[0], "run minus law")

    rms = float(np.sqrt(np.mean(off**2)))
    law = facts.fit.main.bound.law.name
    alt = f"Residuals of {len(off)} runs from the law {law} against parameters and tokens; root mean square {rms:.2g}%."
    return Picture(
        "residuals",
        "Residuals",
        "Dots scattered about zero, mostly within the band, are luck; a slope or an arch is what the law misses.",
        f"Final loss over what {law} expects, minus one; root mean square {rms:.2g}%. "
        f"Band: the seed noise of one run, ±{luck:.2g}% (one standard deviation).",
        alt,
        view.draw("residuals", alt, ("half",), paint, panels=1 if only else 2),
    )


def backtest(view: View) -> Picture | None:
    """Held-out runs predicted from smaller ones: error and interval against the gap."""
    facts = view.facts
    rows = sorted(facts.fit.backtest, key=lambda r: (r["gap"], r["row"])) if facts.fit else []
    if not rows:
        return None
    total, level = len(rows), facts.fit.config.level if facts.fit else 0.0
    rows = [rows[i] for i in np.unique(np.linspace(0, total - 1, min(total, HELD)).astype(int))]
    gaps = np.array([r["gap"] for r in rows])
    # runs of one gap side by side
    order: dict[float, int] = {}
    places = []
    for gap in gaps:
        key = round(float(np.log(gap)), 1)
        places.append(order.setdefault(key, 0))
        order[key] += 1
    centred = np.array([p - (order[round(float(np.log(g)), 1)] - 1) / 2 for p, g in zip(places, gaps)])
    crowd = max(order.values())
    p = facts.prediction

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.115, right=0.97, top=0.9, bottom=0.155)
        high = max(gaps.max(), p.gap if p else 1.0) * 1.25
        low = min(gaps.min() / 1.15, 1.3)
        x = gaps * np.exp(centred * min(0.03, 0.09 / crowd) * np.log(high / low))
        top = 0.0
        for at, r in zip(x, rows):
            down, mid, up = (100 * (r[k] / r["loss"] - 1) for k in ("low", "prediction", "high"))
            colour = INK if down <= 0 <= up else MISS
            ax.plot([at, at], [down, up], color=colour, lw=1.1, alpha=0.35, zorder=2)
            (dot,) = ax.plot(at, mid, "o", ms=4.2, color=colour, mec="none", alpha=0.85, zorder=3)
            ink.hover(
                dot,
                f"{ink.count(r['params'])} params, {ink.count(r['tokens'])} tokens, gap {r['gap']:.3g}: predicted "
                f"{r['prediction']:.4f} [{r['low']:.4f}, {r['high']:.4f}], truth {r['loss']:.4f}",
            )
            top = max(top, abs(mid) * 1.3, min(abs(down), abs(up)), np.quantile([abs(down), abs(up)], 0.9))
        ax.axhline(0, color=MUTED, lw=0.9, zorder=1)
        if p and np.ndim(p.gap) == 0 and p.gap > low:
            down, up = 100 * (p.low / p.loss - 1), 100 * (p.high / p.loss - 1)
            ax.plot([p.gap, p.gap], [down, up], color=ACCENT, lw=5, alpha=0.35, solid_capstyle="butt", zorder=2)
            top = max(top, abs(down), abs(up))
            above = np.mean([r["error"] for r in rows]) < 0  # where fewer bars are
            ax.annotate("target", (p.gap, up if above else down), xytext=(0, 5 if above else -5), ha="center",
                        textcoords="offset points", va="bottom" if above else "top", color=ACCENT,
                        fontsize=ink.SMALL)  # fmt: skip
            for loss in facts.came:
                off = 100 * (p.loss / loss - 1)
                ax.plot(p.gap, -off, "o", ms=6, color="none", mec=INK, mew=1.5, zorder=4)
                top = max(top, abs(off))
        ink.log_axis(ax.xaxis, low, high, lambda v: f"{v:g}×", 6)
        ax.set_ylim(-top * 1.2, top * 1.2)
        _percent(ax)
        ax.set_xlabel("gap: 6 N D of the run over that of the largest fitted")
        ink.top_label(ax, "prediction minus truth")

    errors = [abs(r["error"]) for r in facts.fit.backtest] if facts.fit else []
    inside = sum(r["low"] <= r["loss"] <= r["high"] for r in (facts.fit.backtest if facts.fit else []))
    alt = (
        f"{total} held-out runs predicted from smaller ones: median error {np.median(errors):.2%}, worst "
        f"{max(errors):.2%}, {inside} of {total} inside their interval."
    )
    caption = (
        f"{total} predictions of runs that neither the fit nor any choice had seen; "
        f"median error {np.median(errors):.2%}, worst {max(errors):.2%}; {inside} of {total} inside "
        "their interval (others in magenta)."
        + (" Broad red bar: the target's interval about its prediction" if p else "")
        + ("; ring: the truth, seen from there." if p and facts.came else "." if p else "")
        + (f" {len(rows)} of them are drawn." if len(rows) < total else "")
    )
    return Picture(
        "backtest",
        "Backtest",
        f"Each bar is the interval given to a held-out run; {level:.0%} of them should cross the zero line.",
        caption,
        alt,
        view.draw("backtest", alt, ("half",), paint),
    )


def coverage(view: View) -> Picture | None:
    """How many held-out runs lay inside intervals of each level."""
    from scipy.stats import norm

    fit = view.facts.fit
    rows = fit.backtest if fit else []
    if not fit or len(rows) < FEW_HELD:
        return None
    # a run at the edge of its interval of the fit's level lies at the normal quantile of that level
    off = []
    for r in rows:
        edge = r["high"] if r["loss"] > r["prediction"] else r["low"]
        off.append(np.log(r["loss"] / r["prediction"]) / np.log(edge / r["prediction"]))
    level = np.linspace(0.02, 0.98, 49)
    reach = norm.ppf(0.5 + level / 2) / norm.ppf(0.5 + fit.config.level / 2)
    inside = (np.array(off)[:, None] <= reach).mean(0)
    own = float((np.array(off) <= 1).mean())

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.115, right=0.97, top=0.9, bottom=0.155)
        ax.plot([0, 100], [0, 100], color=MUTED, lw=0.9)
        ax.plot(100 * level, 100 * inside, color=INK, lw=1.6)
        ax.plot(100 * fit.config.level, 100 * own, "o", ms=6, color=ACCENT, mec="none", zorder=4)
        ax.set_xlim(0, 100)
        ax.set_ylim(0, 102)
        ax.set_xlabel("level of the interval, %")
        ink.top_label(ax, "held-out runs inside, %")

    alt = f"{own:.0%} of {len(rows)} held-out runs lie inside their {fit.config.level:.0%} interval."
    return Picture(
        "coverage",
        "Coverage",
        "Above the grey line intervals were wider than needed, below it too narrow.",
        f"{alt} Other levels by the normal distribution. Runs held out together share their luck, so few dozen runs "
        "say little about the second digit.",
        alt,
        view.draw("coverage", alt, ("half",), paint),
    )


def frontier(fit: Fit | None, low: float, high: float) -> tuple[np.ndarray, np.ndarray] | None:
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


def seeds(view: View) -> Picture | None:
    """Runs that differ in their seeds only: how far they lie from their mean."""
    cells: dict[tuple, list[Row]] = {}
    for r in view.facts.done:
        cells.setdefault((r.schedule, r.params, r.tokens, r.lr, r.other), []).append(r)
    cells = {k: v for k, v in cells.items() if len(v) > 1}
    if not cells:
        return None
    off: list[tuple[Row, float]] = []
    squares, free = 0.0, 0
    for found in cells.values():
        mean = float(np.mean([r.final for r in found]))
        off += [(r, 100 * (r.final / mean - 1)) for r in found]
        squares += sum((100 * (r.final / mean - 1)) ** 2 for r in found)
        free += len(found) - 1
    sd = float(np.sqrt(squares / free))
    sizes = {view.colour(r): r.params for found in cells.values() for r in found}
    rank = {c: i - (len(sizes) - 1) / 2 for i, (c, _) in enumerate(sorted(sizes.items(), key=lambda s: s[1]))}

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.115, right=0.97, top=0.9, bottom=0.155)
        lengths = np.array([r.tokens for r, _ in off])
        step = 0.025 * np.log(max(lengths.max() / lengths.min(), 8.0)) / max(1, len(rank) / 6)
        ax.axhspan(-sd, sd, color=MUTED, alpha=0.14, lw=0)
        ax.axhline(0, color=MUTED, lw=0.8)
        places = [r.tokens * np.exp(rank[view.colour(r)] * step) for r, _ in off]
        colours = [view.colour(r) for r, _ in off]
        dots = ax.scatter(places, [y for _, y in off], s=21, c=colours, linewidths=0, alpha=0.85)
        ink.hover(dots, *(f"{view.result(r)}, {y:+.2f}% off the mean of its seeds" for r, y in off))
        room = max((lengths.max() / lengths.min()) ** 0.1, 1.5)
        ink.log_axis(ax.xaxis, lengths.min() / room, lengths.max() * room, ink.count, 6, lengths.tolist())
        top = max(abs(y) for _, y in off) * 1.15 or 1.0
        ax.set_ylim(-top, top)
        _percent(ax)
        ax.set_xlabel("tokens of the run")
        ink.top_label(ax, "run minus mean of its seeds")

    alt = (
        f"Spread of final loss over seeds in {len(cells)} repeated settings; standard deviation {sd:.2g}% of the loss."
    )
    return Picture(
        "seeds",
        "Luck of the seed",
        "No law can predict one run better than this spread.",
        f"{len(cells)} settings trained with several seeds, side by side by size. "
        f"Band: one standard deviation of a run, {sd:.2g}% of its loss.",
        alt,
        view.draw("seeds", alt, ("half",), paint),
    )


def _counted(view: View) -> dict[str, float]:
    """N of each run as the fit counts it; the target's under "target"."""
    total = view.facts.total
    out = {r.id: float(r.params_total if total else r.params) for r in view.facts.rows}
    if view.facts.target:
        t = view.facts.target
        out["target"] = float(t.params_total if total else t.params)
    return out


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


def _law(view: View, low: float, high: float, most: float, length: int) -> tuple[np.ndarray, ...] | None:
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


def _along(view: View, n: float, low: float, high: float) -> tuple[np.ndarray, ...] | None:
    """Law and interval along tokens at N; None where the fit does not answer."""
    if not view.facts.fit:
        return None
    x = np.geomspace(low, high, 48)
    try:
        p = view.facts.fit.predict(params=n, tokens=x)
    except Refusal:
        return None
    return x, p.loss, p.low, p.high


def _target(view: View, ax: Any, x: float, *, left: bool, short: bool = False) -> list[float]:
    """The prediction with its bar, and the truth; returns the losses drawn."""
    facts, seen = view.facts, []
    p = facts.prediction
    if p:
        ax.plot([x, x], [p.low, p.high], color=ACCENT, lw=2, zorder=5, solid_capstyle="butt")
        (diamond,) = ax.plot(x, p.loss, "D", ms=6.5, color=ACCENT, mec="none", zorder=6)
        ink.hover(diamond, f"the target: predicted {p.loss:.4f}, between {p.low:.4f} and {p.high:.4f}")
        text = f"predicted {p.loss:.3f}" if short else f"target, predicted {p.loss:.3f} [{p.low:.3f}, {p.high:.3f}]"
        ax.annotate(text, (x, p.low), xytext=(2, -6), textcoords="offset points", ha="right", va="top",
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


def _percent(ax: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:+.3g}%".replace("-", "−") if abs(v) > 1e-9 else "0"))
