"""The answer of a sweep: by its final losses and its loss curves, or by the former alone, and why."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable

import pytest

from proxytrain.fit import load_fit
from proxytrain.report import write
from proxytrain.sweep.main import curve_fit, fit, predict
from proxytrain.sweep.request import Request
from proxytrain.sweep.results import target_params, telling

Asking = Callable[..., Request]


@pytest.fixture(scope="module")
def both(swept: Request, asking: Asking) -> Request:
    """The trained runs, and laws that are not named."""
    return asking("both", None, "{model: {width: 64}}", "fit.law=auto")


def test_final_losses_and_curves_answer_together(both: Request):
    answer = predict(both, fitted := fit(both))
    ends, curves = answer.parts["final losses"], answer.parts["loss curves"]
    alone = fitted.predict(params=target_params(both.target_record, None), tokens=both.target.tokens)
    assert (ends["loss"], ends["low"]) == (pytest.approx(alone.loss), pytest.approx(alone.low))
    assert min(ends["loss"], curves["loss"]) < answer.loss < max(ends["loss"], curves["loss"])
    assert (curves["law"], curves["curves"]) == ("progress", 24)
    row = next(csv.DictReader((both.folder / "predictions.csv").open()))
    assert float(row["loss"]) == answer.loss
    assert (float(row["final_losses"]), float(row["loss_curves"])) == (ends["loss"], curves["loss"])


def test_the_page_says_what_each_says_alone(both: Request):
    page = write(both, both.folder / "report.html").read_text(encoding="utf-8")
    for name, part in predict(both, fit(both)).parts.items():
        said = f"{part['loss']:.4f} [{part['low']:.4f}, {part['high']:.4f}]"
        assert f"<dt>{name.capitalize()} alone</dt><dd>{said}" in page
    assert "and by a law of whole curves fitted to 24 of the runs" in page


def test_a_fit_of_curves_is_made_once(both: Request):
    path = both.folder / "curves.json"
    predict(both, fit(both))
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert curve_fit(both).data.curves == 24
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    content = json.loads(before[0])
    path.write_text(json.dumps(content | {"warnings": ["by hand"]}))
    answer = predict(both, fit(both))
    assert path.read_bytes() == before[0]  # what was edited is made again
    assert load_fit(path).data.names == [r.id for r in telling(both)]
    path.unlink()
    assert predict(both, fit(both)) == answer


def test_curves_under_the_target_s_schedule_tell_seed_by_seed(both: Request):
    of = [(r.schedule, r.config, r.tokens) for r in telling(both)]
    chosen = [(schedule, c.model.width, c.init_seed, tokens) for schedule, c, tokens in of]
    assert chosen == [("wsd", w, s, n) for s in (0, 1) for w in (16, 24, 32, 48) for n in (8192, 15872, 31744)]


def test_where_the_target_s_schedule_has_one_length_other_schedules_tell(swept: Request, asking: Asking):
    grids = "\n    - {model.width: [16, 24], tokens: 32K}\n    - {model.width: [16, 24], tokens: 32K, schedule: cosine}"
    asked = asking("one_length", grids, "{model: {width: 64}}", "fit.law=auto")
    assert [(r.schedule, r.config.model.width) for r in telling(asked)] == [
        *(("cosine", w) for w in (16, 24)),
        *(("wsd", w) for w in (16, 24)),
    ]


def test_a_law_that_is_named_answers_alone(swept: Request):
    assert swept.config.fit.law == "chinchilla"
    assert predict(swept, fit(swept)).parts == {}


@pytest.mark.parametrize("broken", ["setting", "curve"])
def test_where_curves_cannot_tell_final_losses_do_and_the_reason_is_said(broken: str, both: Request, asking: Asking):
    target = "{model: {width: 64}, lr: 0.01}" if broken == "setting" else "{model: {width: 64}}"
    asked = asking(f"no_{broken}", None, target, "fit.law=auto")
    folder = next(asked.store.root.glob(f"segments/{asked.store.result(asked.ids[0]).lineage}/*/curve.npz"))
    whole = folder.read_bytes()
    try:
        if broken == "curve":
            folder.write_bytes(whole[:100])
        answer = predict(asked, fitted := fit(asked))
        page = write(asked, asked.folder / "report.html").read_text(encoding="utf-8")
    finally:
        folder.write_bytes(whole)
    n = target_params(asked.target_record, None)
    assert answer.loss == fitted.predict(params=n, tokens=asked.target.tokens).loss
    why = answer.parts["loss curves"]["refused"]
    assert "<dt>Loss curves alone</dt><dd>no answer" in page
    assert ("no finished run has the target's settings" in why) if broken == "setting" else why
