"""The page of a table's fit: the answer, figures, the fit in lines. And the predictions behind it as CSV."""

from __future__ import annotations

import csv
import io
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import Refusal
from proxytrain.files.atomic import write_text
from proxytrain.fit import Fit
from proxytrain.fit.tables.runs import size_and_length
from proxytrain.report.facts import FigureFacts
from proxytrain.report.figures import files_of, keep_figures, pictures_of_table
from proxytrain.report.page import boxes, document, figure
from proxytrain.report.row import Row

GRID = 25  # sizes, and lengths, of the frontier in the CSV
COLUMNS = ("kind", "row", "params", "tokens", "flops", "loss", "prediction", "low", "high", "residual", "gap")


def write_table(fit: Fit, path: Path) -> list[Path]:
    """Write what belongs beside the fit.json at `path`: a page with figures, predictions as CSV, the figures as files.

    Returns their paths, of the figures that of their folder. All are replaced whole.
    """
    page, table, folder = (path.with_suffix(end) for end in (".report.html", ".predictions.csv", ".figures"))
    html, figures = render(fit, path.name)
    write_text(table, predictions(fit))
    keep_figures(folder, figures)
    write_text(page, html)
    return [page, table, folder]


def predictions(fit: Fit) -> str:
    """CSV: the runs that were fitted (kind "run"), those held out by the backtest ("held out", one row a cut), and the
    best split of each budget as far as the fit answers ("frontier"). `residual` is log(loss / prediction).
    """
    rows: list[dict[str, Any]] = []
    n, d = _places(fit)
    columns = {"params": n, "tokens": d, "flops": 6 * n * d, "unique_tokens": d}
    columns |= {c: np.array(fit.runs[c]) for c in ("unique_tokens", "schedule", "group") if c in fit.runs}
    loss, low, high, _ = fit.predictor.predict(columns, fit.config.level)
    for i, row in enumerate(fit.runs["row"]):
        rows.append(_row("run", n[i], d[i], fit.runs["loss"][i], loss[i], low[i], high[i], row))
    for h in fit.backtest:
        cells = (h["params"], h["tokens"], h["loss"], h["prediction"], h["low"], h["high"], h["row"])
        rows.append(_row("held out", *cells) | {"gap": h["gap"]})
    if not fit.data.only:
        rows += _frontier(fit, float((n * d).min()))
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.8g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return out.getvalue()


def _places(fit: Fit) -> tuple[Array, Array]:
    """Params and tokens (n,) of the runs that were fitted; 1 for what a table of one variable does not have."""
    only = fit.data.only
    names = [only] if only else ["params", "tokens"]
    n, d = size_and_length({c: np.array(fit.runs[c], dtype=float) for c in names})
    return np.broadcast_arrays(n, d)[0], np.broadcast_arrays(n, d)[1]


def _frontier(fit: Fit, least: float) -> list[dict[str, Any]]:
    rows = []
    most = fit.predictor.range.compute / 6 * np.exp(fit.farthest)
    for flops in 6 * np.geomspace(least, max(most, least * 1.01), GRID):
        try:
            best = fit.optimal(float(flops))
            p = fit.predict(best.params, best.tokens)
        except Refusal:
            continue
        rows.append(_row("frontier", best.params, best.tokens, None, p.loss, p.low, p.high) | {"gap": p.gap})
    return rows


def _row(kind: str, n: float, d: float, loss: float | None, *rest: Any) -> dict[str, Any]:
    prediction, low, high, *row = rest
    cells = {"kind": kind, "row": row[0] if row else "", "params": float(n), "tokens": float(d)}
    cells |= {"flops": float(6 * n * d), "prediction": float(prediction), "low": float(low), "high": float(high)}
    return cells if loss is None else cells | {"loss": float(loss), "residual": float(np.log(loss / prediction))}


def shown(fit: Fit) -> FigureFacts:
    """What the figures read, from the fit alone."""
    r = fit.runs
    rows = [
        _run(str(row), n, d, loss, (r["schedule"][i] if "schedule" in r else ""))
        for i, (row, n, d, loss) in enumerate(zip(r["row"], *_places(fit), r["loss"]))
    ]
    goal, target = fit.data.target, None
    if goal:
        n, d = size_and_length({c: np.asarray(v, dtype=float) for c, v in goal.items()})
        target = _run("target", float(n), float(d), None, fit.data.schedule or "")
    return FigureFacts(rows, [], target, fit, fit.prediction, rows, [])


def _run(name: str, params: float, tokens: float, loss: float | None, schedule: Any) -> Row:
    return Row(
        name, 0, 0, round(params), round(params), round(tokens), str(schedule), 0.0, 0, 0, 0, 6.0 * params * tokens,
        "waiting" if loss is None else "done", loss,
    )  # fmt: skip


def render(fit: Fit, name: str) -> tuple[str, dict[str, bytes]]:
    """The page as HTML, with inline style and pictures, nothing fetched; and its figures as files by name."""
    drawn, palette = pictures_of_table(shown(fit))
    p = fit.prediction
    parts = ['<section id="answer" aria-label="The answer">']
    if p:
        goal = fit.data.target or {}
        parts.append(
            f'<p class="number"><strong>{p.loss:.3f}</strong> <span>{p.low:.3f} – {p.high:.3f}<small>'
            f"{p.level:.0%} interval of one run</small></span></p>"
            f'<p class="lead">{", ".join(f"{c} {v:.4g}" for c, v in goal.items())}: a gap of {p.gap:.3g}× to the '
            "largest run that was fitted.</p>"
        )
    else:
        parts.append(
            '<p class="lead">No run to predict was named: <code>proxytrain predict params=7e9 tokens=2e12</code>, or '
            "params and tokens with <code>proxytrain fit</code>.</p>"
        )
    unsafe = ([p.note] if p and p.note else []) + fit.warnings
    reading = fit.data.reading
    lines = [line for line in fit.summary() if not line.startswith(("warning: ", "target: ")) and line not in reading]
    if reading:
        said = ". ".join(line[:1].upper() + line[1:] for line in reading)
        parts.append(f'<p class="lead">{escape(said)}.</p>')
    parts += [boxes(unsafe), "</section>", '<section id="figures" class="figures" aria-label="Figures">']
    parts += [figure(picture) for picture in drawn]
    versions = ", ".join(f"{k} {v}" for k, v in sorted(fit.versions.items()))
    parts += [
        "</section>",
        f'<section id="fit"><h2>The fit</h2><pre>{escape(chr(10).join(lines))}</pre>',
        f"<dl><dt>Table</dt><dd>{escape(str(fit.data.source))}, sha256 {escape(fit.data_hash)}</dd>",
        f"<dt>Versions</dt><dd>{escape(versions)}</dd>",
        f"<dt>Kept in</dt><dd>{escape(name)}</dd></dl></section>",
    ]
    return document(str(fit.data.source), "proxytrain fit", palette, parts), files_of(drawn)
