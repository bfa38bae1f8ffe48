"""Two sweeps side by side: their laws, what differs between the recipes, where one overtakes the other."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from proxytrain import corpus
from proxytrain.analysis.crossover import Comparison, compare
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit import Fit
from proxytrain.plan import freeze
from proxytrain.report import ink
from proxytrain.report.facts import FigureFacts
from proxytrain.report.figures import Picture, View, files_of
from proxytrain.report.page import boxes, document, figure
from proxytrain.report.row import Row, row_of
from proxytrain.report.words import law_words, signed, tested
from proxytrain.store.documents import RunRecord
from proxytrain.store.store import Store
from proxytrain.sweep import main as sweep

A, B = (ink.HUES[i][0] for i in (0, 1))
MUTED, INK = (ink.COLOURS[n][0] for n in ("muted", "ink"))


@dataclass(frozen=True)
class Side:
    """One of the two: a sweep, its runs that are done, and its fit."""

    name: str
    records: list[RunRecord]
    corpus: str
    rows: list[Row]
    fit: Fit


def render(store: Store, names: tuple[str, str], tokens_per_param: float | None) -> tuple[str, dict[str, bytes]]:
    """The page, and its figures as files by name.

    Parameters
    ----------
    names : sweeps of the store, finished or not
    tokens_per_param : along which the laws are compared; None: the middle of the runs of both

    Raises
    ------
    RequestError
        If a sweep is not there, or if the two were scored on different text.
    Refusal
        If the runs of one cannot be fitted.
    """
    a, b = (_side(store, name) for name in names)
    _same_text(store, a, b)
    ratio = tokens_per_param or float(np.exp(np.mean(np.log([r.tokens / r.params for s in (a, b) for r in s.rows]))))
    found = compare(a.fit, b.fit, float(f"{ratio:.3g}"), a.fit.config.level)
    pairs = _pairs(a, b)
    view = View.of(FigureFacts([*a.rows, *b.rows], [], None, None, None, [], []))
    drawn = [_difference(view, a, b, found, pairs), _both(view, a, b, found)]
    parts = [
        f'<section id="answer" aria-label="The answer"><p class="lead">{escape(_answer(a, b, found))}</p>',
        boxes(_unsafe(a, b, found)),
        f"<dl>{_terms(_grounds(a, b, found, pairs))}</dl></section>",
        '<section id="figures" class="figures" aria-label="Figures">',
        *(figure(p) for p in drawn),
        "</section>",
        _table(a, b),
        '<section id="reproduce"><h2>Reproduce</h2>',
        f"<pre>proxytrain report --compare {a.name} {b.name} store={escape(str(store.root))} "
        f"tokens_per_param={found.tokens_per_param:g}</pre>",
        *(f"<h3>{escape(s.name)}</h3><pre>{escape(chr(10).join(s.fit.summary()))}</pre>" for s in (a, b)),
        "</section>",
    ]
    return document(f"{a.name} against {b.name}", "proxytrain report", view.palette, parts), files_of(drawn)


def _side(store: Store, name: str) -> Side:
    if name not in store.sweeps():
        known = ", ".join(store.sweeps()) or "none"
        raise RequestError(f"--compare {name}: no such sweep in store={store.root}; there are {known}")
    made = freeze.load(store.sweep(name) / "plan.json")
    records = list(made.runs.values())
    try:
        fit = sweep.fit_runs(store, store.sweep(name), records)
    except Refusal as refusal:
        raise Refusal(f"{name}: {refusal}") from None
    rows = [row_of(record, store) for record in records]
    return Side(name, records, made.corpus, [r for r in rows if r.status == "done"], fit)


def _same_text(store: Store, a: Side, b: Side) -> None:
    """Losses of two validation sets, or in tokens of two tokenizers, cannot be held against each other."""
    if a.corpus == b.corpus:
        return
    first, second = (corpus.load(store.corpora(), s.corpus) for s in (a, b))
    if first.manifest.vocab_size == second.manifest.vocab_size and np.array_equal(first.val, second.val):
        return
    raise RequestError(
        f"--compare {a.name} {b.name}: scored on different text, or in other tokens (corpus {a.corpus} and "
        f"{b.corpus}); only losses on the same validation tokens can be compared, so give both sweeps the same data"
    )


def _pairs(a: Side, b: Side) -> list[tuple[Row, Row]]:
    """Runs of both that differ in nothing but the recipe: width, depth, length, schedule's name and seeds."""

    def cell(r: Row) -> tuple[object, ...]:
        return r.width, r.depth, r.tokens, r.schedule, r.init_seed, r.data_seed

    best: dict[tuple[object, ...], Row] = {}
    for r in b.rows:
        if cell(r) not in best or r.final < best[cell(r)].final:
            best[cell(r)] = r
    mine: dict[tuple[object, ...], Row] = {}
    for r in a.rows:
        if cell(r) not in mine or r.final < mine[cell(r)].final:
            mine[cell(r)] = r
    return [(r, best[c]) for c, r in mine.items() if c in best and best[c].id != r.id]


def _answer(a: Side, b: Side, c: Comparison) -> str:
    d, half = float(c.difference[-1]), float(c.half[-1])
    better, worse = (a, b) if d < 0 else (b, a)
    where = f"{ink.power_of_ten(c.flops[-1])} FLOPs at {c.tokens_per_param:g} tokens per parameter"
    if c.winner:
        text = (
            f"{better.name} reaches a loss {100 * abs(d):.2f}% ± {100 * half:.2f}% below that of {worse.name} at "
            f"{where}, the largest compute at which both laws answer"
        )
    else:
        text = (
            f"Which is better at {where}, the largest compute at which both laws answer, is not known: the loss of "
            f"{a.name} differs from that of {b.name} by {signed(d, 2)} ± {100 * half:.2f}%"
        )
    if c.crossing is None or c.crossing_interval is None:
        return f"{text}; the laws do not cross on the way there."
    low, high = c.crossing_interval
    least = ink.power_of_ten(low) if low > c.flops[0] else "anywhere below"
    most = ink.power_of_ten(high) if high < c.flops[-1] else "anywhere above"
    places = {"inside": "inside the runs", "before": "before the smallest runs", "beyond": "beyond the largest runs"}
    return f"{text}; the laws cross at {ink.power_of_ten(c.crossing)} FLOPs ({least} to {most}), {places[c.where]}."


def _unsafe(a: Side, b: Side, c: Comparison) -> list[str]:
    out = []
    for s in (a, b):
        if len(s.rows) < len(s.records):
            out.append(f"Unfinished: {s.name} has {len(s.rows)} of {len(s.records)} runs; what follows is preliminary.")
        if not s.fit.backtest:
            out.append(f"{s.name} has too few runs for a backtest: how far its law can be trusted is not known.")
    if a.fit.data.schedule != b.fit.data.schedule:
        out.append(f"The laws are of two schedules: {a.fit.data.schedule} and {b.fit.data.schedule}.")
    ratios = [r.tokens / r.params for s in (a, b) for r in s.rows]
    if not min(ratios) / 1.5 <= c.tokens_per_param <= max(ratios) * 1.5:
        out.append(
            f"No run has about {c.tokens_per_param:g} tokens per parameter (they have {min(ratios):.3g} to "
            f"{max(ratios):.3g}): the laws are stretched in that direction too."
        )
    return out


def _grounds(a: Side, b: Side, c: Comparison, pairs: list[tuple[Row, Row]]) -> list[tuple[str, str]]:
    i = int(np.abs(np.log(c.flops / c.runs[1])).argmin())
    out = [
        (
            "At the largest runs",
            f"{a.name} differs by {signed(float(c.difference[i]), 2)} ± {100 * c.half[i]:.2f}% at "
            f"{ink.power_of_ten(c.runs[1])} FLOPs (below zero it is better; {c.level:.0%} intervals)",
        ),
        (
            "Slope",
            f"{signed(c.slope, 2)} of loss an e-fold of compute there, between {signed(c.slope_interval[0], 2)} and "
            f"{signed(c.slope_interval[1], 2)}: below zero {a.name} gains on {b.name}",
        ),
    ]
    if pairs:
        off = np.log([x.final / y.final for x, y in pairs])
        wins = int((off < 0).sum())
        out.append(
            (
                "Run by run",
                f"{len(pairs)} runs of the same width, length, schedule and seeds: {a.name} is better in {wins}, by "
                f"{signed(float(off.mean()), 2)} in the mean",
            )
        )
    return out


def _difference(view: View, a: Side, b: Side, c: Comparison, pairs: list[tuple[Row, Row]]) -> Picture:
    """Loss of a over that of b against compute."""
    middle = 100 * np.expm1(c.difference)
    low, high = (100 * np.expm1(c.difference + sign * c.half) for sign in (-1, 1))
    places = np.array([6.0 * x.params * x.tokens for x, _ in pairs])
    off = np.array([100 * (x.final / y.final - 1) for x, y in pairs])
    at = c.flops >= c.runs[0] / 3

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.07 if size == "wide" else 0.13, right=0.985, top=0.93, bottom=0.115)
        ax.axvspan(*c.runs, color=MUTED, alpha=0.07, lw=0)
        ax.axhline(0, color=MUTED, lw=0.9, zorder=1)
        ax.fill_between(c.flops[at], low[at], high[at], color=INK, alpha=0.12, lw=0, zorder=2)
        (line,) = ax.plot(c.flops[at], middle[at], color=INK, lw=1.6, zorder=3)
        ink.hover(line, f"loss of {a.name} over that of {b.name}, by their laws")
        if len(pairs):
            dots = ax.scatter(places, off, s=21, c=[A if y < 0 else B for y in off], linewidths=0, alpha=0.8, zorder=4)
            ink.hover(
                dots,
                *(
                    f"width {x.width}, {ink.count(x.tokens)} tokens, seed {x.seeds}: {a.name} {x.final:.4f}, {b.name} "
                    f"{y.final:.4f} ({v:+.2f}%)"
                    for (x, y), v in zip(pairs, off)
                ),
            )
        if c.crossing and c.flops[at][0] <= c.crossing:
            ax.plot(c.crossing, 0, "D", ms=6.5, color=ink.COLOURS["accent"][0], mec="none", zorder=5)
        least = min(c.flops[at][0], *(places if len(places) else [np.inf]))
        ink.log_axis(ax.xaxis, least / 1.1, c.flops[-1] * 1.1, ink.power_of_ten, 7 if size == "wide" else 4)
        seen = np.r_[middle[at], np.quantile(np.r_[low[at], high[at]], [0.05, 0.95]), off, 0.0]
        room = 0.08 * (seen.max() - seen.min()) or 1.0
        ax.set_ylim(seen.min() - room, seen.max() + room)
        ax.yaxis.set_major_formatter(ink.percent)
        ax.set_xlabel(f"compute (6 N D) at {c.tokens_per_param:g} tokens per parameter, FLOPs")
        ink.top_label(ax, f"loss of {a.name} over that of {b.name}, minus one")

    alt = (
        f"Loss of {a.name} over that of {b.name} against compute: {middle[-1]:+.2f}% at {c.flops[-1]:.2g} FLOPs, "
        f"between {low[-1]:+.2f}% and {high[-1]:+.2f}%."
    )
    return Picture(
        "difference",
        "Which is better, and where",
        f"Below the zero line {a.name} is better; where the band crosses the line it is not known which is.",
        f"Line: the laws; band: its {c.level:.0%} interval, of what is not known of the laws, without the luck of "
        "single runs. Grey: compute at which both have runs. "
        + (f"Dots: {len(pairs)} pairs of runs that differ in the recipe only. " if pairs else "")
        + ("Diamond: where the laws cross." if c.crossing else ""),
        alt,
        view.draw("difference", alt, ("wide", "phone"), paint),
    )


def _both(view: View, a: Side, b: Side, c: Comparison) -> Picture:
    """Loss of both against compute."""
    at = c.flops >= c.runs[0] / 3
    params = np.sqrt(c.flops[at] / 6 / c.tokens_per_param)
    place = {"params": params, "tokens": params * c.tokens_per_param, "flops": c.flops[at]}
    laws = [np.exp(s.fit.predictor.centre(place | {"unique_tokens": place["tokens"]})[0]) for s in (a, b)]

    def paint(axes: list[Any], size: str) -> None:
        (ax,) = axes
        ax.figure.subplots_adjust(left=0.07 if size == "wide" else 0.12, right=0.87 if size == "wide" else 0.72)
        ax.figure.subplots_adjust(top=0.93, bottom=0.115)
        seen, labels = [], []
        for s, colour, law in ((a, A, laws[0]), (b, B, laws[1])):
            rows = [r for r in s.rows if r.schedule == s.fit.data.schedule and r.final < ink.HIGHEST]
            (line,) = ax.plot(c.flops[at], law, color=colour, lw=1.6, zorder=3)
            ink.hover(line, f"law of {s.name}")
            x = [6.0 * r.params * r.tokens for r in rows]
            dots = ax.scatter(x, [r.final for r in rows], s=18, color=colour, linewidths=0, alpha=0.6, zorder=2)
            ink.hover(dots, *(f"{s.name}: {view.result(r)}" for r in rows))
            seen += [*law, *(r.final for r in rows)]
            labels.append((float(law[-1]), s.name if len(s.name) < 15 else s.name[:13] + "…", colour))
        ink.log_axis(ax.xaxis, c.flops[at][0] / 1.3, c.flops[-1] * 1.1, ink.power_of_ten, 7 if size == "wide" else 4)
        ink.log_axis(ax.yaxis, min(seen) * 0.98, max(seen) * 1.02, ink.plain)
        ax.set_xlabel("compute (6 N D), FLOPs")
        ink.top_label(ax, "final loss, nats a token")
        ink.end_labels(ax, labels)

    alt = f"Final loss against compute of the runs of {a.name} and {b.name}, with the law of each."
    return Picture(
        "both",
        "Both laws",
        "Dots above their line have more or fewer tokens per parameter than the line, which nearly always costs loss.",
        f"Lines: each law at {c.tokens_per_param:g} tokens per parameter. Dots: all runs of the fitted schedule.",
        alt,
        view.draw("both", alt, ("wide", "phone"), paint),
    )


def _table(a: Side, b: Side) -> str:
    """Facts of both, and every key of the configuration whose values differ."""
    rows = [(name, cell(a), cell(b)) for name, cell in _FACTS]
    x, y = _values(a), _values(b)
    other = [(k, x.get(k, ""), y.get(k, "")) for k in dict.fromkeys([*x, *y]) if x.get(k) != y.get(k)]

    def body(cells: list[tuple[str, str, str]]) -> str:
        return "\n".join(
            f'<tr><th scope="row">{escape(n)}</th><td>{escape(x)}</td><td>{escape(y)}</td></tr>' for n, x, y in cells
        )

    head = (
        f'<thead><tr><td></td><th scope="col">{escape(a.name)}</th><th scope="col">{escape(b.name)}</th></tr></thead>'
    )
    differ = f"<table>{head}<tbody>\n{body(other)}\n</tbody></table>" if other else "<p>Nothing: the same settings.</p>"
    return (
        '<section id="sides"><h2>Side by side</h2><div class="scroll words" tabindex="0" role="region" '
        f'aria-label="Both sweeps"><table>{head}<tbody>\n{body(rows)}\n</tbody></table>'
        f"<h3>Settings that differ</h3>{differ}</div></section>"
    )


def _values(side: Side) -> dict[str, str]:
    """Each key of the configuration, with all its values in the sweep."""
    found: dict[str, dict[str, None]] = {}
    for r in side.records:
        for key, value in r.settings.items():
            found.setdefault(key, {})[str(value)] = None
    return {k: ", ".join(v) if len(v) <= 12 else f"{len(v)} values" for k, v in found.items()}


def _constants(s: Side) -> str:
    unknown = s.fit.not_identified
    parts = [
        f"{n} = not identified" if n in unknown else f"{n} = {v:.4g} ± {s.fit.stderr[n]:.2g}"
        for n, v in s.fit.params.items()
    ]
    return ", ".join(parts)


_FACTS = (
    ("runs done", lambda s: f"{len(s.rows)} of {len(s.records)}, {s.fit.data.fitted} fitted"),
    ("schedule", lambda s: str(s.fit.data.schedule)),
    ("largest run fitted", lambda s: f"{ink.power_of_ten(s.fit.predictor.range.compute)} FLOPs (6 N D)"),
    ("lowest loss", lambda s: f"{min(r.final for r in s.rows):.4f}"),
    ("law", lambda s: law_words(s.fit)),
    ("its constants", _constants),
    ("backtest", lambda s: tested(s.fit)),
    ("seed noise", lambda s: f"{100 * s.fit.noise.run:.2g}% of one run's loss ({s.fit.noise.source})"),
    ("corpus", lambda s: s.corpus),
)


def _terms(items: list[tuple[str, str]]) -> str:
    return "".join(f"<dt>{escape(n)}</dt><dd>{escape(t)}</dd>" for n, t in items)
