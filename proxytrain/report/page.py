"""The page: facts and pictures to one HTML file with its style inside. All text is escaped here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from proxytrain.report import ink, words
from proxytrain.report.facts import Facts, Row
from proxytrain.report.figures import Picture, pictures
from proxytrain.track.text import duration

COLUMNS = (
    ("run", ""),
    ("width", "n"),
    ("depth", "n"),
    ("params", "n"),
    ("tokens", "n"),
    ("schedule", ""),
    ("lr", "n"),
    ("seed", "n"),
    ("final loss", "n"),
    ("bits/byte", "n"),
    ("status", ""),
    ("epochs", "n"),
    ("seconds", "n"),
)


def render(facts: Facts) -> str:
    """The whole page of a sweep."""
    drawn, palette = pictures(facts)
    parts = [_answer(facts), _figures(facts, drawn), _table(facts), _missing(facts), _reproduce(facts)]
    return document(facts.asked.name, "proxytrain report", palette, parts)


def document(title: str, kind: str, palette: ink.Palette, parts: list[str]) -> str:
    """One HTML file with its style inside."""
    light, dark = palette.css()
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
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
    if p and p.note:
        parts.append(boxes(unsafe[:1]))
        unsafe = unsafe[1:]
    parts.append(f'<p class="lead">{escape(words.answer(facts))}</p>')
    after = words.after(facts)
    if after:
        parts.append(f'<p class="truth">{escape(after)}</p>')
    parts.append(boxes(unsafe))
    parts.append(boxes(words.notes(facts), "notes"))
    rows = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in words.grounds(facts))
    parts.append(f"<dl>{rows}</dl></section>")
    return "\n".join(part for part in parts if part)


def boxes(texts: Iterable[str], kind: str = "warnings") -> str:
    items = "".join(f"<li>{escape(t)}</li>" for t in texts)
    return f'<ul class="{kind}" aria-label="{kind.capitalize()}">{items}</ul>' if items else ""


def _figures(facts: Facts, drawn: list[Picture]) -> str:
    body = "\n".join(figure(p) for p in drawn)
    empty = "" if facts.lines else "<p>No run is finished yet: the figures of losses come with the first.</p>\n"
    return f'{empty}<section id="figures" class="figures" aria-label="Figures">\n{body}\n</section>'


def figure(p: Picture) -> str:
    images = "".join(f'<div class="{size}">{image}</div>' for size, image in p.variants.items())
    kind = "half" if "half" in p.variants else "full"
    return (
        f'<figure id="figure-{p.key}" class="{kind}"><h2>{escape(p.heading)}</h2><p class="read">{escape(p.read)}</p>'
        f"{images}<figcaption>{escape(p.caption)}</figcaption></figure>"
    )


def _table(facts: Facts) -> str:
    rows = [(r, "") for r in facts.rows] + ([(facts.target, "target")] if facts.target else [])
    hidden = {"depth"} if len({r.depth for r, _ in rows}) == 1 else set()
    head = "".join(f'<th scope="col"{_kind(kind)}>{name}</th>' for name, kind in COLUMNS if name not in hidden)
    body = "\n".join(_cells(r, name, hidden) for r, name in rows)
    return (
        '<section id="runs"><h2>Runs</h2><p class="read">Loss in nats a token on the whole validation set, ± its '
        "sampling error. Params without embedding and readout. Seconds of one worker, from the first token.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of runs"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div></section>"
    )


def _cells(r: Row, name: str, hidden: set[str]) -> str:
    status = r.status if not r.why else f"{r.status}: {r.why}"
    if r.status == "diverged" and r.diverged_at is not None:
        status = f"diverged at {ink.count(r.diverged_at)}"
    values = (
        r.id[:8] + (f" ({name})" if name else ""),
        str(r.width),
        str(r.depth),
        f"{r.params:,}",
        f"{r.tokens:,}",
        r.schedule,
        f"{r.lr:g}",
        r.seeds,
        _loss(r),
        "" if r.bits_per_byte is None else f"{r.bits_per_byte:#.5g}",
        status,
        "" if r.epochs is None else f"{r.epochs:.2f}",
        "" if r.seconds is None else f"{r.seconds:.0f}",
    )
    shown = [(v, kind) for v, (column, kind) in zip(values, COLUMNS) if column not in hidden]
    cells = "".join(f"<td{_kind(kind)}>{escape(v)}</td>" for v, kind in shown)
    return f'<tr class="{escape(r.status)}{" " + name if name else ""}" title="{escape(r.id)}">{cells}</tr>'


def _loss(r: Row) -> str:
    if r.loss is None:
        return ""
    return f"{r.loss:.4f} ± {r.val_se or 0:.4f}" if r.loss < ink.HIGHEST else f"{r.loss:.3g}"


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _missing(facts: Facts) -> str:
    if not facts.missing:
        text = "<p>Nothing: every run of the sweep is done, and nothing was refused.</p>"
    else:
        items = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in facts.missing)
        text = f"<dl>{items}</dl>"
    return f'<section id="missing"><h2>Missing or refused</h2>{text}</section>'


def _reproduce(facts: Facts) -> str:
    asked, fit = facts.asked, facts.fit
    m = asked.corpus.manifest
    folder = asked.folder
    verb = "verify" if facts.truth else "sweep"
    versions = {"proxytrain": version("proxytrain"), **(fit.versions if fit else {}), **_trained_with(facts)}
    items = [
        (
            "Corpus",
            f"{m.content_hash}: {m.train_tokens:,} training and {m.val_tokens:,} validation tokens, {m.tokenizer}",
        ),
        ("Versions", ", ".join(f"{k} {v}" for k, v in sorted(versions.items()))),
    ]
    if facts.seconds:
        items.append(("Device", ", ".join(_devices(facts))))
    if fit:
        items.append(
            ("Table fitted", f"sha256 {fit.data_hash}: {fit.data['fitted']} of {fit.data['rows']} finished runs")
        )
        items.append(("Kept in", str(folder / "fit.json")))
    rows = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in items)
    summary = f"<h3>The fit</h3><pre>{escape(chr(10).join(fit.summary()))}</pre>" if fit else ""
    config = json.dumps(_config(facts), indent=1, default=str)
    return (
        '<section id="reproduce"><h2>Reproduce</h2>'
        f"<pre>{escape(f'proxytrain {verb} sweep.name={asked.name} store={asked.store.root} [overrides]')}</pre>"
        f"<p>with the overrides that were given; the whole configuration is below, and that of each run in "
        f"<code>{escape(str(folder / 'plan.json'))}</code>.</p>"
        f"<dl>{rows}</dl>{summary}"
        f"<details><summary>The whole configuration</summary><pre>{escape(config)}</pre></details></section>"
    )


def _config(facts: Facts) -> dict[str, Any]:
    return dataclasses.asdict(facts.asked.config)


def _trained_with(facts: Facts) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for row in facts.done:
        for name, value in ((facts.asked.store.result(row.id) or {}).get("versions") or {}).items():
            found.setdefault(name, set()).add(str(value))
    return {name: " and ".join(sorted(values)) for name, values in found.items()}


def _devices(facts: Facts) -> list[str]:
    found = {str((facts.asked.store.result(r.id) or {}).get("device", "")) for r in facts.done}
    return [*sorted(d for d in found if d), f"{duration(facts.seconds)} of one worker in all"]
