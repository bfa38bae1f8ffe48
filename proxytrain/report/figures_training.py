"""Figures of training: loss curves by size and by schedule, the target's own, and the learning rates behind them."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxytrain.config.schedule import learning_rates
from proxytrain.fit.curves.curve import BURN
from proxytrain.plan.runs import Run
from proxytrain.report import ink
from proxytrain.report.facts import Facts, Line
from proxytrain.report.figures import SCALES, Picture, View
from proxytrain.report.row import Row

SHOWN = 0.015  # on a log axis curves start at this share of the longest run
STEEP = 0.04  # on a linear axis what lies before this share of it may rise out of the figure
EVALUATED = 80  # with more curves than this, evaluations are left out
MUTED, INK, ACCENT = (ink.COLOURS[n][0] for n in ("muted", "ink", "accent"))


def curves(view: View) -> Picture | None:
    """Training loss of all runs of the main schedule, coloured by size."""
    name = view.facts.schedule
    lines = [line for line in view.facts.lines if line.row.schedule == name and len(line.tokens)]
    if not lines:
        return None
    last = max(line.row.tokens for line in lines)
    first_seed, rate = _first_seeds(lines), _rate(view, lines)

    def paint(axes: list[Any], size: str, scale: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.06 if size == "wide" else 0.11, right=0.905 if size == "wide" else 0.82)
        ax.figure.subplots_adjust(top=0.93, bottom=0.115)
        low, high = last * SHOWN, last * 1.04
        steep = low if scale == "log" else STEEP * last
        seen = []
        for line in reversed(lines):
            seeds = line.row.init_seed, line.row.data_seed
            strong = seeds == first_seed[line.row.params] and line.row.lr == rate
            colour, keep = view.colour(line.row), line.tokens >= max(low * 0.97, line.start)
            x, y = line.tokens[keep], line.loss[keep]
            seen += y[x >= steep].tolist()
            (drawn,) = ax.plot(x, y, color=colour, lw=1.3 if strong else 0.9, alpha=0.95 if strong else 0.35)
            drawn.set_zorder(2 + strong)
            ink.hover(drawn, view.name(line.row))
            if len(lines) <= EVALUATED and strong:
                inside = (line.eval_tokens >= max(low, line.start)) & (line.eval_tokens < line.row.tokens)
                ax.plot(line.eval_tokens[inside], line.eval_loss[inside], ".", ms=3.2, color=colour, zorder=4)
            if line.row.loss is not None:
                seen.append(line.row.loss)
            elif len(x):
                (cross,) = ax.plot(x[-1], y[-1], "x", ms=7, mew=1.8, color=ACCENT, zorder=6)
                ink.hover(cross, f"{view.name(line.row)}: diverged")
        ended = [line.row for line in lines if line.row.loss is not None]
        ends = [r.tokens for r in ended], [r.final for r in ended]
        if ended:
            dots = ax.scatter(*ends, s=21, c=[view.colour(r) for r in ended], linewidths=0, zorder=5)
            ink.hover(dots, *map(view.result, ended))
        seen = ink.sane(seen)
        top = float(np.quantile(seen, 0.995))
        if scale == "log":
            lengths = [r.tokens for r in ended]
            ink.log_axis(ax.xaxis, low, high, ink.count, 7 if size == "wide" else 5, lengths)
            ink.log_axis(ax.yaxis, min(seen) * 0.985, top * 1.02, ink.plain)
        else:
            _token_axis(ax, 0, last)
            room = 0.03 * (top - min(seen)) or 0.1
            ax.set_ylim(min(seen) - room, top + room)
        ax.set_xlabel("tokens trained on")
        ink.top_label(ax, "loss, nats a token")
        ink.end_labels(ax, _labels(view, lines))

    sizes = len({line.row.params for line in lines})
    pale = ["seeds"] if len({(line.row.init_seed, line.row.data_seed) for line in lines}) > 1 else []
    pale += ["learning rates"] if len({line.row.lr for line in lines}) > 1 else []
    endings = sum(line.start > 0 for line in lines)
    alt = f"Training loss against tokens of {len(lines)} runs of {sizes} model sizes under the {name} schedule."
    caption = (
        f"{len(lines)} runs under {name}. Lines: training loss, a running mean. "
        + ("Small dots: evaluations on a fixed slice of validation text. " if len(lines) <= EVALUATED else "")
        + "Large dots: final loss on the whole validation set. "
        + (f"{endings} of the runs branch off a longer one and are drawn from there. " if endings else "")
        + (f"Pale lines: other {' and '.join(pale)}. " if pale else "")
        + ("Crosses: runs that diverged. " if any(line.row.loss is None for line in lines) else "")
    )
    read = "Lower is better; where a line bends down to a large dot, the learning rate decays and a run ends."
    if not endings:
        read = "Lower is better; a large dot is where a run ends."
    drawn = view.draw("curves", alt, ("wide", "phone"), paint, scales=SCALES)
    return Picture("curves", "Loss during training", read, caption.strip(), alt, drawn)


def outlook(view: View) -> Picture | None:
    """The target's loss curve as laws of whole curves expect it, with its band; and as it came, once it was trained."""
    facts = view.facts
    c, t, p = facts.course, facts.target, facts.prediction
    if not c or not t:
        return None

    def paint(axes: list[Any], size: str, scale: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.1, right=0.97, top=0.9, bottom=0.155)
        keep = c.tokens >= t.tokens * BURN
        ax.fill_between(c.tokens[keep], c.low[keep], c.high[keep], color=ACCENT, alpha=0.15, lw=0, zorder=1)
        (middle,) = ax.plot(c.tokens[keep], c.loss[keep], color=ACCENT, lw=1.6, zorder=3)
        ink.hover(middle, "predicted curve of the target")
        seen = [*c.low[keep], *c.high[keep]]
        for trained in facts.truth_lines:
            late = trained.tokens >= t.tokens * BURN
            loss = trained.loss[late] * np.exp(c.shift)
            (line,) = ax.plot(trained.tokens[late], loss, color=INK, lw=1.0, alpha=0.75, zorder=2)
            ink.hover(line, f"the target as it was trained, seed {trained.row.seeds}")
            seen += loss.tolist()
        if p:
            ax.plot([t.tokens] * 2, [p.low, p.high], color=ACCENT, lw=2, zorder=4, solid_capstyle="butt")
            (diamond,) = ax.plot(t.tokens, p.loss, "D", ms=6.5, color=ACCENT, mec="none", zorder=5)
            ink.hover(diamond, f"the answer: {p.loss:.4f}, between {p.low:.4f} and {p.high:.4f}")
            seen += [p.low, p.high]
        for loss in facts.came:
            (ring,) = ax.plot(t.tokens, loss, "o", ms=9, color="none", mec=INK, mew=1.6, zorder=6)
            ink.hover(ring, f"the target as it was trained: final loss {loss:.4f}")
        seen = ink.sane(seen)
        if scale == "log":
            ink.log_axis(ax.xaxis, t.tokens * BURN, t.tokens * 1.06, ink.count, 5)
            ink.log_axis(ax.yaxis, min(seen) * 0.985, max(seen) * 1.01, ink.plain)
        else:
            _token_axis(ax, 0, t.tokens * 1.01)
            room = 0.03 * (max(seen) - min(seen))
            ax.set_ylim(min(seen) - room, max(seen) + room)
        ax.set_xlabel("tokens trained on")
        ink.top_label(ax, "loss, nats a token")

    end = f"{c.loss[-1]:.3f}, between {c.low[-1]:.3f} and {c.high[-1]:.3f}"
    alt = f"Predicted loss curve of the target with its {c.level:.0%} band; it ends at {end}."
    if facts.came:
        alt += f" The target as it was trained ended at {_each(facts.came)}."
    return Picture(
        "outlook",
        "The target's curve",
        f"A target under way should keep within the band {c.level:.0%} of the time; one that leaves it tells early.",
        f"Red line and band: the law {c.law} of whole curves, fitted to {c.curves} of the runs, for the target's own "
        f"schedule, from {BURN:.0%} of it on, as they were fitted; at the end {end}. Diamond with bar: the answer, "
        "from final losses too. "
        + (f"Black: the target as it was trained, its training loss times {np.exp(c.shift):.3f} (validation loss over "
           "training loss of the runs); ring: its final loss." if facts.truths else "")
        + (f" {c.note}." if c.note else ""),
        alt,
        view.draw("outlook", alt, ("half",), paint, scales=SCALES),
    )  # fmt: skip


def _each(losses: list[float]) -> str:
    return ", ".join(f"{x:.4f}" for x in losses)


def by_schedule(view: View) -> Picture | None:
    """Curves of equal size, length and seed under different schedules."""
    cells: dict[tuple[int, int, int, int, tuple[tuple[str, str], ...]], dict[str, Line]] = {}
    for line in view.facts.lines:
        r = line.row
        if r.loss is not None and r.loss < ink.HIGHEST:
            cell = cells.setdefault((r.params, r.tokens, r.init_seed, r.data_seed, r.other), {})
            if r.schedule not in cell or r.final < cell[r.schedule].row.final:
                cell[r.schedule] = line
    chosen: dict[int, dict[str, Line]] = {}
    for key, found in sorted(cells.items(), key=lambda c: (c[0][0], -c[0][1], c[0][2:])):
        if len(found) > 1:
            chosen.setdefault(key[0], found)
    if not chosen:
        return None
    shown = {k: chosen[k] for k in sorted(chosen)[:: max(1, len(chosen) - 1)]}  # the smallest and the largest size
    hues = _hues(view)

    def paint(axes: list[Any], size: str, scale: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.1, right=0.755, top=0.9, bottom=0.155)
        last = max(line.row.tokens for found in shown.values() for line in found.values())
        seen, labels = [], []
        for found in shown.values():
            for name, line in found.items():
                keep = line.tokens > 0.15 * line.row.tokens
                (drawn,) = ax.plot(line.tokens[keep], line.loss[keep], color=hues[name], lw=1.3, zorder=3)
                ink.hover(drawn, view.name(line.row))
                (dot,) = ax.plot(line.row.tokens, line.row.loss, "o", ms=4.6, color=hues[name], mec="none", zorder=4)
                ink.hover(dot, view.result(line.row))
                seen += [*line.loss[keep].tolist(), line.row.final]
                labels.append((line.row.final, f"{name} {line.row.final:.3f}", hues[name]))
            if len(shown) > 1:
                top = max(found.values(), key=lambda line: line.row.final).row
                labels.append((top.final * 1.0001, view.label(top), MUTED))
        seen = ink.sane(seen)
        if scale == "log":
            ink.log_axis(ax.xaxis, 0.14 * last, last * 1.02, ink.count, 5, [last])
            ink.log_axis(ax.yaxis, min(seen) * 0.985, max(seen) * 1.01, ink.plain)
        else:
            _token_axis(ax, 0.13 * last, last)
            ax.set_ylim(min(seen) * 0.985, max(seen) * 1.01)
        ax.set_xlabel("tokens trained on")
        ink.top_label(ax, "loss, nats a token")
        ink.end_labels(ax, labels)

    names = ", ".join(sorted({n for found in shown.values() for n in found}))
    finals = "; ".join(
        f"{view.label(next(iter(found.values())).row)}: "
        + ", ".join(f"{n} {line.row.loss:.3f}" for n, line in sorted(found.items()))
        for found in shown.values()
    )
    alt = f"Loss curves of equal runs under different schedules ({names}). Final losses: {finals}."
    return Picture(
        "by-schedule",
        "Loss by schedule",
        "Lines of one size differ in their schedule; compare where they end.",
        "Training loss, averaged; dots and numbers: final loss on the whole validation set. "
        "Same size, length and seed; of several peak learning rates the best."
        + (f" Shown: the smallest and largest of {len(chosen)} sizes." if len(chosen) > 2 else ""),
        alt,
        view.draw("by-schedule", alt, ("half",), paint, scales=SCALES),
    )


def schedules(view: View) -> Picture | None:
    """Learning rate against tokens, each schedule and length once."""
    distinct = {(r.schedule, r.phases): r for r in _asked(view)}
    runs = sorted(distinct.values(), key=lambda r: (r.schedule, r.tokens, r.lr))
    if not runs:
        return None
    hues = _hues(view)
    last = max(r.tokens for r in runs)

    def paint(axes: list[Any], size: str) -> None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        (ax,) = axes
        ax.figure.subplots_adjust(left=0.125, right=0.97, top=0.9, bottom=0.155)
        top = max(r.lr for r in runs)
        for run in runs[:100]:
            x = np.unique(np.r_[np.linspace(1, run.tokens, 240), [p.end for p in run.phases]])
            (line,) = ax.plot(x, learning_rates(run.phases, x), color=hues[run.schedule], lw=1.4, alpha=0.85, zorder=3)
            ink.hover(line, f"{run.schedule}, {ink.count(run.tokens)} tokens, peak {run.lr:g}")
        ax.set_ylim(0, top * 1.1)
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        _token_axis(ax, 0, last)
        ax.set_xlabel("tokens trained on")
        ink.top_label(ax, "base learning rate")
        longest = {r.schedule: r for r in runs}  # the last of each name is the longest
        points = [(float(learning_rates(r.phases, np.array([0.68 * r.tokens]))[0]), n) for n, r in longest.items()]
        height = ax.get_window_extent().height * 72 / ax.figure.dpi
        points.sort()
        at = ink.spread(np.array([y / (top * 1.1) * height + 9 for y, _ in points]), 14.0, 6.0, height + 8)
        for place, (_, name) in zip(at, points):
            ax.annotate(
                name,
                (0.68 * longest[name].tokens, 0),
                xycoords=("data", "axes fraction"),
                xytext=(4, place),
                textcoords="offset points",
                color=hues[name],
                fontsize=ink.SMALL,
                va="center",
            )

    names = ", ".join(dict.fromkeys(r.schedule for r in runs))
    alt = f"Learning rate against tokens for {len(runs)} combinations of schedule and length ({names})."
    return Picture(
        "schedules",
        "Learning-rate schedules",
        "Each line is the learning rate that some run of the grid saw, from its first token to its last.",
        f"{len(runs)} combinations of schedule, length and peak rate. The base rate is shown: "
        "the parametrization scales it by width, for each kind of weight.",
        alt,
        view.draw("schedules", alt, ("half",), paint),
    )


def _hues(view: View) -> dict[str, str]:
    """Colour of each schedule: the main one in ink, the others by hue."""
    found = {r.schedule for r in view.facts.rows} | {r.schedule for r in _asked(view)}
    names = sorted(found - {view.facts.schedule})
    return {view.facts.schedule: INK} | {n: ink.HUES[i % len(ink.HUES)][0] for i, n in enumerate(names)}


def _first_seeds(lines: list[Line]) -> dict[int, tuple[int, int]]:
    seeds: dict[int, tuple[int, int]] = {}
    for line in lines:
        pair = (line.row.init_seed, line.row.data_seed)
        seeds[line.row.params] = min(seeds.get(line.row.params, pair), pair)
    return seeds


def _rate(view: View, lines: list[Line]) -> float:
    """The learning rate of the target, where runs have it; else the one that most have."""
    rates = [line.row.lr for line in lines]
    goal = view.facts.target.lr if view.facts.target else None
    return goal if goal in rates else max(sorted(set(rates)), key=rates.count)


def _labels(view: View, lines: list[Line]) -> list[tuple[float, str, str]]:
    """One label a size, at the end of its longest run."""
    ends: dict[int, tuple[int, float, Row]] = {}
    for line in lines:
        y = line.row.loss if line.row.loss is not None else float(line.loss[-1])
        if line.row.params not in ends or line.row.tokens > ends[line.row.params][0]:
            ends[line.row.params] = (line.row.tokens, y, line.row)
    return [(y, view.label(row), view.colour(row)) for _, y, row in ends.values()]


def _token_axis(ax: Any, low: float, high: float) -> None:
    """A linear axis of tokens."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.set_xlim(low, high * 1.015)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: ink.count(v) if v else "0"))


def _asked(view: View) -> list[Run]:
    """The runs of the sweep that the page is about."""
    assert isinstance(view.facts, Facts)
    return list(view.facts.asked.runs)
