"""The page: facts and pictures to one HTML file with its style and script inside. All text is escaped here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from proxytrain.config.recipe import NUMERICS_VERSION
from proxytrain.corpus import preview
from proxytrain.monitor.text import duration
from proxytrain.report import ink, stability, words
from proxytrain.report.facts import Facts
from proxytrain.report.figures import SCALES, Picture, files_of, pictures
from proxytrain.report.row import Row
from proxytrain.report.standing import BUDGETS, best_rates, place


def render(facts: Facts) -> tuple[str, dict[str, bytes]]:
    """The whole page of a sweep, and its figures as files by name."""
    drawn, palette = pictures(facts)
    parts = [
        _answer(facts),
        _figures(facts, drawn),
        _standing(facts),
        _stability(facts),
        _table(facts),
        _missing(facts),
        _reproduce(facts),
    ]
    return document(facts.asked.name, "proxytrain report", palette, parts), files_of(drawn)


def document(title: str, kind: str, palette: ink.Palette, parts: list[str]) -> str:
    """One HTML file with its style and script inside."""
    light, dark = palette.css()
    style, script = ((Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    name = escape(title)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{name} · proxytrain</title>",
            f"<style>\n:root{{{light}}}",
            f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}",
            f"{style}</style>",
            "</head>",
            "<body>",
            f'<header><p class="kind">{kind}</p><h1>{name}</h1></header>',
            "<main>",
            *parts,
            "</main>",
            f"<script>{script}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _answer(facts: Facts) -> str:
    parts = ['<section id="answer" aria-label="The answer">']
    p = facts.prediction
    if p:
        parts.append(
            f'<p class="number"><strong>{p.loss:.3f}</strong> <span>{p.low:.3f} – {p.high:.3f}<small>'
            f"{p.level:.0%} interval of one run, nats a token</small></span></p>"
        )
    unsafe = words.warnings(facts)
    grave = [w for w in unsafe if w.startswith(words.GRAVE)] if p else []
    parts.append(boxes(grave))
    unsafe = [w for w in unsafe if w not in grave]
    parts.append(f'<p class="lead">{escape(words.answer(facts))}</p>')
    after = words.after(facts)
    if after:
        parts.append(f'<p class="truth">{escape(after)}</p>')
    parts.append(boxes(unsafe))
    parts.append(boxes(words.notes(facts), "notes"))
    grounds = [*words.grounds(facts), ("Text", _text(facts))]
    rows = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in grounds)
    parts.append(f"<dl>{rows}</dl></section>")
    return "\n".join(part for part in parts if part)


def _text(facts: Facts) -> str:
    """Return how the prepared text begins, and how it was read."""
    corpus = facts.asked.corpus
    return "; ".join([" ".join(preview(corpus).lines(corpus)), *(corpus.manifest.notices or ())])


def boxes(texts: Iterable[str], kind: str = "warnings") -> str:
    items = "".join(f"<li>{escape(t)}</li>" for t in texts)
    return f'<ul class="{kind}" aria-label="{kind.capitalize()}">{items}</ul>' if items else ""


def _figures(facts: Facts, drawn: list[Picture]) -> str:
    body = "\n".join(figure(p) for p in drawn)
    empty = "" if facts.lines else "<p>No run is finished yet: the figures of losses come with the first.</p>\n"
    return f'{empty}<section id="figures" class="figures" aria-label="Figures">\n{body}\n</section>'


def figure(p: Picture) -> str:
    """A figure with its words; of one in two scales a switch says which is shown."""
    images = "".join(f'<div class="plot {kind}">{image}</div>' for kind, image in p.drawn.variants.items())
    kind = "half" if any("half" in v for v in p.drawn.variants) else "full"
    scales = [s for s in SCALES if any(s in v.split() for v in p.drawn.variants)]
    switch = "".join(
        f'<label><input type="radio" name="scale-{p.key}" value="{s}"{" checked" if s == SCALES[0] else ""}>{s}</label>'
        for s in scales
    )
    if scales:
        switch = f'<fieldset class="scale"><legend>axes of {escape(p.heading)}</legend>{switch}</fieldset>'
    return (
        f'<figure id="figure-{p.key}" class="{kind}"><h2>{escape(p.heading)}</h2><p class="read">{escape(p.read)}</p>'
        f"<div>{switch}{images}</div><figcaption>{escape(p.caption)}</figcaption></figure>"
    )


def _table(facts: Facts) -> str:
    """Runs, a column for whatever differs between them; the target last."""
    goals = facts.truths or ([facts.target] if facts.target else [])
    rows = [*facts.rows, *goals]
    columns = [(name, kind, [cell(r) for r in rows]) for name, kind, cell in _columns(facts)]
    columns = [c for c in columns if any(text for text, _ in c[2]) and not (c[0] == "depth" and len(set(c[2])) == 1)]
    head = "".join(f'<th scope="col"{_kind(kind)}>{escape(name)}</th>' for name, kind, _ in columns)
    body = []
    for i, r in enumerate(rows):
        cells = "".join(_td(kind, *shown[i]) for _, kind, shown in columns)
        status = f"{r.status} target" if r in goals else r.status
        body.append(f'<tr class="{escape(status)}" title="{escape(r.id)}">{cells}</tr>')
    return (
        '<section id="runs"><h2>Runs</h2><p class="read">Loss in nats a token on the whole validation set, ± its '
        "sampling error. Params without embedding and readout. Seconds of one worker, from the first token. Whatever "
        "differs between runs has a column; all else is the same in all, and stands at the end of the page. A click on "
        'a heading sorts.</p><div class="scroll" tabindex="0" role="region" aria-label="Table of runs">'
        f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(body)}\n</tbody></table></div>'
        "</section>"
    )


def _stability(facts: Facts) -> str:
    """Ways of training whose rates span decades."""
    if not facts.stability:
        return ""
    heads, rows = stability.table(facts.stability)
    kinds = ["", "", *("n" for _ in heads[2:])]
    head = "".join(f'<th scope="col"{_kind(k)}>{escape(h)}</th>' for k, h in zip(kinds, heads))
    body = "\n".join(f"<tr>{''.join(_td(k, *cell) for k, cell in zip(kinds, row))}</tr>" for row in rows)
    return (
        '<section id="stability"><h2>Stability</h2><p class="read">LR sensitivity: how far above the loss at the best '
        "rate runs end on average over the rates tried, in nats, with its 90% interval over seeds (2309.14322); its "
        "difference to the common setting is paired by seed. Lost: runs that diverged or ended above their initial "
        "loss. Largest logit: of attention, of any block, at any time that was looked at. Under eps: the largest share "
        "of a kind of weights (embeddings apart) whose root second moment was below eps at the end. Spikes: of the "
        'loss, over all runs.</p><div class="scroll" tabindex="0" role="region" aria-label="Table of stability">'
        f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div></section>'
    )


def _standing(facts: Facts) -> str:
    """Recipes with their places, best rates and what they took to train; empty where none were compared."""
    s = facts.standing
    if not s:
        return ""
    first = s.rankings[0]
    head = ["recipe", *(f"place at equal {BUDGETS[r.budget]}" for r in s.rankings)]
    head += ["mean loss", "over the best", "best rates", "tokens trained", "run by run"]
    body = []
    for i, name in enumerate(first.names):
        shared, alone = s.tokens[name]
        cells = [name, *(place(r, r.names.index(name)) for r in s.rankings), f"{first.loss[i]:.4f}"]
        cells += [words.signed(float(np.expm1(first.behind[i])), 2), best_rates(first, i)]
        cells += [ink.count(shared), ink.count(alone)]
        body.append(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in cells)}</tr>")
    notes = "".join(f"<li>{escape(w)}</li>" for r in s.rankings[:1] for w in r.warnings)
    return (
        '<section id="standing"><h2>Which recipe is better</h2><p class="read">Each at its own best learning rate, in '
        f"runs of the same size, length and seeds; differences below {first.half:.2%} of the mean loss are seed noise. "
        "Tokens trained: all its runs, rates and seeds included, with shared beginnings trained once; run by run: "
        'without sharing.</p><div class="scroll" tabindex="0" role="region" aria-label="Ranks of recipes">'
        "<table><thead><tr>"
        + "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
        + f"</tr></thead><tbody>\n{chr(10).join(body)}\n</tbody></table></div>"
        + (f"<ul>{notes}</ul>" if notes else "")
        + "</section>"
    )


def _td(kind: str, text: str, value: float | None) -> str:
    sorted_by = "" if value is None else f' data-value="{value:.10g}"'
    return f"<td{_kind(kind)}{sorted_by}>{escape(text)}</td>"


Cell = tuple[str, float | None]  # text, and the number by which it is sorted, where it is one


def _columns(facts: Facts) -> list[tuple[str, str, Callable[[Row], Cell]]]:
    """Name, class and cells of every column."""
    number = "n"
    keys = list(dict.fromkeys(key for r in facts.rows for key, _ in r.other))
    return [
        ("run", "", lambda r: (r.id[:8] + ("" if r in facts.rows else " (target)"), None)),
        ("width", number, lambda r: (str(r.width), r.width)),
        ("depth", number, lambda r: (str(r.depth), r.depth)),
        ("params", number, lambda r: (f"{r.params:,}", r.params)),
        ("tokens", number, lambda r: (f"{r.tokens:,}", r.tokens)),
        ("schedule", "", lambda r: (r.schedule, None)),
        ("lr", number, lambda r: (f"{r.lr:g}", r.lr)),
        *((key, "", _other(key)) for key in keys),
        ("seed", number, lambda r: (r.seeds, r.init_seed)),
        ("final loss", number, lambda r: (_loss(r), r.loss)),
        ("bits/byte", number, lambda r: (_maybe(r.bits_per_byte, "#.5g"), r.bits_per_byte)),
        ("status", "", lambda r: (_status(r), None)),
        ("epochs", number, lambda r: (_maybe(r.epochs, ".2f"), r.epochs)),
        ("seconds", number, lambda r: (_maybe(r.seconds, ".0f"), r.seconds)),
    ]


def _other(key: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        text = dict(row.other).get(key, "")
        try:
            return text, float(text)
        except ValueError:
            return text, None

    return cell


def _maybe(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _status(r: Row) -> str:
    if r.status == "diverged" and r.diverged_at is not None:
        return f"diverged at {ink.count(r.diverged_at)}"
    return f"{r.status}: {r.why}" if r.why else r.status


def _loss(r: Row) -> str:
    if r.loss is None:
        return ""
    return f"{r.loss:.4f} ± {r.val_se or 0:.4f}" if r.loss < ink.HIGHEST else f"{r.loss:.3g}"


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _missing(facts: Facts) -> str:
    if not facts.missing:
        text = "<p>Nothing: every run of the sweep is done and fitted, and no answer was refused.</p>"
    else:
        items = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in facts.missing)
        text = f"<dl>{items}</dl>"
    return f'<section id="missing"><h2>Missing or refused</h2>{text}</section>'


def _reproduce(facts: Facts) -> str:
    asked, fit = facts.asked, facts.fit
    m = asked.corpus.manifest
    verbs = ["sweep", *(["verify"] if facts.truths else []), "report"]
    commands = [shlex.join(["proxytrain", verb, *asked.command]) for verb in verbs]
    versions = {"proxytrain": version("proxytrain"), **(fit.versions if fit else {}), **_trained_with(facts)}
    items = [
        (
            "Corpus",
            f"{m.content_hash}: {m.train_tokens:,} training and {m.val_tokens:,} validation tokens, {m.tokenizer}",
        ),
        (
            "Runs",
            f"{asked.digest}, a hash of the ids of all runs and the target",
        ),
        ("Numerics", f"version {NUMERICS_VERSION}"),
        ("Versions", ", ".join(f"{k} {v}" for k, v in sorted(versions.items()))),
    ]
    if facts.seconds:
        items.append(("Device", ", ".join(_devices(facts))))
    if fit:
        items.append(("Table fitted", f"sha256 {fit.data_hash}: {fit.data.fitted} of {fit.data.rows} finished runs"))
    items.append(
        (
            "Beside",
            f"in {asked.folder}: plan.json, losses.csv, fit.json, curves.json, predictions.csv, figures/*.svg, *.png",
        )
    )
    rows = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in items)
    summary = f"<h3>The fit</h3><pre>{escape(chr(10).join(fit.summary()))}</pre>" if fit else ""
    first, *others = (r.settings for r in asked.records)
    same = {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}
    return (
        f'<section id="reproduce"><h2>Reproduce</h2><pre>{escape(chr(10).join(commands))}</pre>'
        f"<p>The configuration that this makes is below; that of each run is also in <code>{escape(str(asked.folder))}"
        f"/plan.json</code>.</p><dl>{rows}</dl>{summary}"
        f"<details><summary>The same in all runs</summary><pre>{escape(json.dumps(same, indent=1))}</pre></details>"
        "<details><summary>The whole configuration</summary>"
        f"<pre>{escape(json.dumps(_config(facts), indent=1, default=str))}</pre></details></section>"
    )


def _config(facts: Facts) -> dict[str, Any]:
    return msgspec.to_builtins(facts.asked.config)


def _trained_with(facts: Facts) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for row in facts.done:
        if result := facts.asked.store.result(row.id):
            for name, value in result.versions.items():
                found.setdefault(name, set()).add(value)
    return {name: " and ".join(sorted(values)) for name, values in found.items()}


def _devices(facts: Facts) -> list[str]:
    found = {result.device for r in facts.done if (result := facts.asked.store.result(r.id))}
    return [*sorted(d for d in found if d), f"{duration(facts.seconds)} of one worker in all"]
