"""The report: one whole page in every state of a sweep, that says what the files say, and nothing unescaped."""

import csv
import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from proxytrain import report
from proxytrain.corpus import prepare, preview
from proxytrain.monitor.console import Console
from proxytrain.plan.parts import Failure, folders, record_failure, unfinished
from proxytrain.report import facts as report_facts
from proxytrain.report import write
from proxytrain.report.facts import Facts, Line, collect
from proxytrain.report.page import render
from proxytrain.sweep.main import plan, train
from proxytrain.sweep.request import Request
from proxytrain.sweep.results import caveats

FIGURES = [
    "curves",
    "fit",
    "lengths",
    "compute",
    "outlook",
    "schedules",
    "by-schedule",
    "residuals",
    "backtest",
    "seeds",
]
SCRIPT = "<script>" + (Path(report.__file__).parent / "page.js").read_text() + "</script>"
PLAIN = "[{model.width: [16, 24, 32, 48], tokens: [8K, 16K, 32K], init_seed: [0, 1]}]"  # trained by `swept`
VOID = {"meta", "link", "br", "img", "hr", "input"}
Asking = Callable[..., Request]


class Reader(HTMLParser):
    """Open tags must be closed in order; ids, figures and text are kept."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.ids.update(v for k, v in attrs if k == "id" and v)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text.append(data)


def written(asked: Request) -> str:
    path = asked.folder / "report.html"
    assert write(asked, path) == path
    return path.read_text(encoding="utf-8")


def words(page: str) -> str:
    return re.sub(r"\s+", " ", " ".join(Reader(page).text))


def svgs(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, flags=re.S)


def test_the_page_needs_no_network_and_no_other_file(page: str) -> None:
    assert set(re.findall(r"\w+://[^\s\"'<]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert page.count(SCRIPT) == 1
    assert not re.search(r"<script|<link|<img|@import|url\((?!#)|\ssrc=", page.replace(SCRIPT, ""))
    assert not re.search(r"fetch|XMLHttp|import|WebSocket|sendBeacon", SCRIPT)


def test_the_page_is_whole_html_with_unique_ids(page: str) -> None:
    read = Reader(page)
    assert page.startswith("<!DOCTYPE html>")
    assert read.tags["h1"] == read.tags["main"] == 1
    assert [i for i, n in read.ids.items() if n > 1] == []


def test_every_figure_is_there_with_words_and_a_text_alternative(page: str) -> None:
    assert re.findall(r'<figure id="figure-([^"]+)"', page) == FIGURES
    for figure in re.findall(r"<figure.*?</figure>", page, flags=re.S):
        assert re.search(r'<h2>\w.*?</h2><p class="read">\w.*?</p>', figure)
        assert re.search(r"<figcaption>\w.*?</figcaption>", figure, flags=re.S)
    for text in svgs(page):
        root = ET.fromstring(text)
        assert root.get("role") == "img"
        assert len(root.get("aria-label", "")) > 20
        ids = {e.get("id") for e in root.iter()}
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= ids


def test_the_page_says_what_the_files_say(page: str, swept: Request) -> None:
    row = next(csv.DictReader((swept.folder / "predictions.csv").open()))
    text = words(page)
    for key in ("loss", "low", "high"):
        assert f"{float(row[key]):.4f}" in text
    errors = np.abs([r["error"] for r in json.loads((swept.folder / "fit.json").read_text())["backtest"]])
    assert f"median error {np.median(errors):.2%}, worst {errors.max():.2%}" in text
    assert swept.corpus.manifest.content_hash in text
    for run in swept.runs:
        result = swept.store.result(run.id)
        assert result
        assert run.id[:8] in text
        assert f"{result.final_loss:.4f} ± {result.val_se:.4f}" in text


def test_the_same_store_gives_the_same_bytes(page: str, swept: Request) -> None:
    kept = (swept.folder / "fit.json").stat().st_mtime_ns
    assert written(swept) == page
    assert (swept.folder / "fit.json").stat().st_mtime_ns == kept  # fresh: not fitted again


def test_colours_follow_the_theme_and_text_the_page(page: str) -> None:
    assert "prefers-color-scheme:dark" in page
    assert "@media print" in page
    for text in svgs(page):
        assert not re.search(r"(?<!,)#[0-9a-f]{6}(?=[;\"])", text)
        assert "font-family" not in text


def test_a_stale_fit_is_made_again(page: str, swept: Request, asking: Asking) -> None:
    asked = asking("stale", PLAIN)
    asked.folder.mkdir(parents=True)
    (asked.folder / "fit.json").write_text((swept.folder / "fit.json").read_text())
    written(asked)
    assert json.loads((asked.folder / "fit.json").read_text())["data"]["rows"] == 24


def test_a_half_finished_sweep_says_what_it_has_and_what_is_missing(page: str, asking: Asking) -> None:
    asked = asking("half", "[{model.width: [16, 24, 32, 48], tokens: [8K, 16K, 32K, 64K], init_seed: [0, 1]}]")
    made = plan(asked)
    text = words(written(asked))
    assert "Unfinished: 24 of 32 runs are done; the prediction is preliminary." in text
    assert "8 of 32 runs not trained yet" in text
    while parts := unfinished(made, asked.store):  # twice each, until single members have failed
        folder = folders(made, asked.store) / parts[0].pack.id
        record_failure(folder, Failure(traceback="Traceback\nValueError: <script>out</script> of it"))
    broken = written(asked)
    assert "failed: ValueError: &lt;script&gt;out&lt;/script&gt; of it" in broken
    assert "<script" not in broken.replace(SCRIPT, "")


def test_a_sweep_before_its_first_run_has_a_page(asking: Asking) -> None:
    page = written(asking("fresh", "[{model.width: [16, 24], init_seed: [7]}]"))
    text = words(page)
    assert "0 of 2 runs are done" in text
    assert "no finished run to fit" in text
    assert "No run is finished yet" in text
    Reader(page)


def test_a_refused_fit_is_said_in_plain_words(page: str, asking: Asking) -> None:
    text = words(written(asking("refused", "[{model.width: [16, 24], tokens: [32K]}]")))
    assert "No prediction. The runs could not be fitted." in text
    assert "Refused: " in text
    assert "1.317" not in text


def test_a_target_out_of_reach_gets_no_number_unless_asked_for(page: str, swept: Request, asking: Asking) -> None:
    far = "{model: {width: 4096}}"
    text = words(written(asking("far", target=far)))
    assert "No prediction. The fit does not reach the target." in text
    text = words(written(asking("farther", None, far, "fit.allow_extrapolation=true")))
    assert text.index("EXTRAPOLATION") < text.index("is predicted to end at")


def test_without_a_target_the_page_has_the_law_and_no_prediction(page: str, asking: Asking) -> None:
    made = written(asking("open", PLAIN, "{}"))
    text = words(made)
    assert "24 of 24 runs are trained, the best of them to a loss of" in text
    assert "No larger run was named to predict" in text
    assert "24, which differ in width 16, 24, 32, 48; tokens 8.2k, 16k, 32k; 2 seeds" in text
    assert "Backtest" in text
    assert 'id="figure-fit"' in made


def test_without_a_target_a_law_that_fails_is_no_refusal_at_the_top(page: str, asking: Asking) -> None:
    text = words(written(asking("few", "[{model.width: [16, 24], tokens: 32K, schedule: [wsd, cosine]}]", "null")))
    assert "Refused" not in text
    assert text.index("law of the loss") > text.index("Missing or refused")


def test_without_a_target_the_page_says_the_best_run_and_how_recipes_compare(page: str, asking: Asking) -> None:
    asked = asking("pairs", "[{model.width: [16, 24], tokens: 32K, schedule: [wsd, cosine]}]", "null")
    loss = {(r.schedule, r.recipe.model.width): asked.store.result(r.id).final_loss for r in asked.runs}
    text = words(written(asked))
    best = min(loss, key=lambda key: loss[key])
    assert f"Best run width {best[1]}, depth 1, 32k tokens, {best[0]}, lr" in text
    means = {name: np.sqrt(loss[name, 16] * loss[name, 24]) for name in ("wsd", "cosine")}
    first, second = sorted(means, key=lambda name: means[name])
    behind = f"{100 * (means[second] / means[first] - 1):.2f}% ± "
    assert f"Recipes at the same rate {first} {means[first]:.4f}; {second} +{behind}" in text


def test_a_diverged_run_is_named(page: str, asking: Asking) -> None:
    asked = asking("diverged", f"[{PLAIN[1:-1]}, {{model.width: 16, lr: 1e36}}]")
    train(asked, plan(asked), Console(quiet=True))
    lost = [r for r in asked.runs if asked.store.result(r.id).status == "diverged"]
    assert len(lost) == 1
    text = words(written(asked))
    assert f"Diverged and left out of the fit: {lost[0].id[:8]} (width 16, lr 1e+36)." in text
    assert "Crosses: runs that diverged" in text


def test_a_curve_that_cannot_be_read_is_named(page: str, asking: Asking) -> None:
    asked = asking("torn", "[{model.width: 16, init_seed: 5, tokens: 8K}]", "{}")
    train(asked, plan(asked), Console(quiet=True))
    result = asked.store.result(asked.runs[0].id)
    assert result
    (asked.store.segment(result.key) / "curve.npz").write_bytes(b"torn")
    text = words(written(asked))
    assert f"curve of run {asked.runs[0].id} cannot be read" in text
    assert f"Curves of 1 run cannot be read ({asked.runs[0].id})" in text[: text.index("Loss")]


def test_a_jump_makes_the_answer_unsafe_and_says_how_to_avoid_it(asking: Asking) -> None:
    asked = asking("jumpy", "[{model.width: [16, 24], tokens: 256K, init_seed: 9}]", "{}")
    train(asked, plan(asked), Console(quiet=True))
    assert caveats(asked) == []
    run = asked.runs[1]
    result = asked.store.result(run.id)
    assert result
    meta = asked.store.meta(result.key)
    assert meta
    file = asked.store.segment(meta.parent) / "curve.npz"  # warm-up and constant rate
    curve = dict(np.load(file))
    late = np.arange(len(curve["loss"])) > 0.5 * len(curve["loss"])
    curve["loss"] = np.where(late, 0.7 * curve["loss"], curve["loss"]).astype(curve["loss"].dtype)
    file.unlink()
    np.savez(file, **curve)
    (warned,) = caveats(asked)
    assert warned.startswith(f"UNSAFE: the loss of 1 of 2 runs falls in a jump ({run.id}; ")
    for needed in (
        "0 of 1 of width 16, 1 of 1 of width 24",
        f"{run.id} (width 24)",
        "token shift (model=gpt, or model=shared_qk",
        "data.unit=line",
        "more tokens",
    ):
        assert needed in warned
    text = words(written(asked))
    assert text.index("UNSAFE: the loss of") < text.index("Loss during training")


def test_after_verify_the_truth_stands_beside_the_prediction(page: str, swept: Request) -> None:
    known = collect(swept)
    assert known.prediction
    assert known.target
    low, high = known.prediction.loss, known.prediction.high * 1.01
    goals = [dataclasses.replace(known.target, status="done", loss=v, val_se=0.01, seconds=1.0) for v in (low, high)]
    for goal, verdict in zip(goals, ("inside", "OUTSIDE")):
        text = words(render(dataclasses.replace(known, target=goal, truths=[goal]))[0])
        assert f"The target has been trained since: {goal.loss:.4f} ± 0.0100." in text
        assert f"the truth lies {verdict} the interval" in text
    text = words(render(dataclasses.replace(known, target=goals[0], truths=goals))[0])
    assert f"trained since, 2 times: {low:.4f}, {high:.4f}" in text
    assert "the truth lies 1 times in 2 inside the interval" in text


def test_hostile_words_are_shown_and_not_obeyed(page: str, swept: Request) -> None:
    bad = "<script>alert('&\"x\"')</script>"
    known = collect(swept)
    rows = [dataclasses.replace(r, schedule=bad if r.schedule == "cosine" else r.schedule, why=bad) for r in known.rows]
    lines = [dataclasses.replace(line, row=rows[known.rows.index(line.row)]) for line in known.lines]
    made = render(dataclasses.replace(known, rows=rows, lines=lines, missing=[(bad, bad)]))[0]
    Reader(made)
    assert "<script" not in made.replace(SCRIPT, "")
    assert made.count("&lt;script&gt;alert(") > len(rows)
    for text in svgs(made):
        ET.fromstring(text)


def test_the_page_shows_how_the_text_begins(page: str, swept: Request) -> None:
    assert preview(swept.corpus).begins in " ".join(Reader(page).text)


def test_hostile_text_is_shown_and_not_obeyed(page: str, swept: Request, tmp_path: Path) -> None:
    for k in range(60):
        (tmp_path / f"{k}.md").write_text(f"<script>alert({k})</script>\x1b[2J\ud7ff\u202e")
    data = replace(swept.config.data, files=[f"{tmp_path}/*.md"], val_fraction=0.3, val_tokens=500)
    asked = dataclasses.replace(swept, corpus=prepare(data, tmp_path / "root"))
    made = render(dataclasses.replace(collect(swept), asked=asked))[0]
    Reader(made)
    assert "<script" not in made.replace(SCRIPT, "")
    assert "\x1b" not in made


@pytest.mark.slow
def test_five_hundred_runs_stay_light(page: str, swept: Request) -> None:
    known = many(collect(swept), 500)
    made = render(known)[0]
    assert len(made.encode()) < 5_000_000
    Reader(made)


def many(known: Facts, runs: int) -> Facts:
    """As many runs with curves of 20,000 updates each, thinned as real ones are."""
    rng, rows, lines = np.random.default_rng(0), [], []
    tokens = np.arange(1, 20_001) * 512
    most = max(40, min(400, report_facts.POINTS // runs))
    for i in range(runs):
        width = 16 + 8 * (i % 20)
        row = dataclasses.replace(
            known.rows[0], id=f"{i:016x}", width=width, params=24 * width**2, tokens=int(tokens[-1]), init_seed=i // 20,
            schedule=known.schedule, status="done", loss=1.5 + 20 / width + 0.01 * rng.normal(), flops=1e12 * width,
        )  # fmt: skip
        loss = row.final + 60 * tokens**-0.4 + 0.1 * rng.normal(size=len(tokens))
        evals = tokens[999::1000]
        lines.append(Line(row, *report_facts.thin(tokens, loss, most), evals, row.final + 60 * evals**-0.4))
        rows.append(row)
    assert known.fit
    columns = {c: [float(getattr(r, c)) for r in rows] for c in ("params", "tokens", "loss")}
    residual = (0.01 * rng.normal(size=runs)).tolist()
    fitted = dataclasses.replace(known.fit, runs={**columns, "residual": residual})
    return dataclasses.replace(known, rows=rows, lines=lines, fit=fitted, used=rows)
