"""Figures of what a fit is worth: residuals, held-out runs, coverage, luck of the seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxytrain.report import ink
from proxytrain.report.figures import LENGTHS, Picture, View
from proxytrain.report.row import Row

HELD = 300  # bars of the backtest at most
FEW_HELD = 8  # with fewer there is no curve of coverage
MUTED, INK, ACCENT, MISS = (ink.COLOURS[n][0] for n in ("muted", "ink", "accent", "miss"))


def residuals(view: View) -> Picture | None:
    """What the law misses, against size and against length."""
    facts = view.facts
    if not facts.fit or not facts.used:
        return None
    off = 100 * np.expm1(np.array(facts.fit.runs["residual"], dtype=float))
    luck = 100 * facts.fit.noise.run
    n_of, only = view.counted(), facts.fit.data.only

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


def seeds(view: View) -> Picture | None:
    """Runs that differ in their seeds only: how far they lie from their mean."""
    cells: dict[tuple[object, ...], list[Row]] = {}
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


def _percent(ax: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_formatter(ink.percent)
