"""Two sweeps held against each other: the page says what the laws and the runs say, and refuses what cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from guides import told
from support import proxytrain as command

from proxytrain.analysis.crossover import compare
from proxytrain.errors import RequestError
from proxytrain.fit import Fit, load_fit
from proxytrain.monitor.console import Console
from proxytrain.report import write_comparison
from proxytrain.sweep.main import plan, train
from proxytrain.sweep.request import Request

SLOW = "[{model.width: [16, 24, 32, 48], tokens: [8K, 16K, 32K], init_seed: [0, 1], lr: 0.004}]"


@pytest.fixture(scope="session")
def slow(asking: Callable[..., Request]) -> Request:
    """The sweep `tiny` at a quarter of its learning rate."""
    asked = asking("slow", SLOW)
    assert train(asked, plan(asked), Console(quiet=True)) == 0
    return asked


def words(path: Path) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<(style|script)>.*?</\1>|<[^>]+>", " ", path.read_text(), flags=re.S)))


def test_the_page_holds_both_laws_and_all_pairs_of_runs(swept: Request, slow: Request) -> None:
    (line,) = told("report --compare A B")
    line = [{"A": "tiny", "B": "slow"}.get(w, w) for w in line]
    said = command(*line, f"store={swept.store.root}", cwd=swept.folder).stdout
    page = swept.folder / "against-slow" / "report.html"
    assert str(page) in said
    text = words(page)
    a, b = (load_fit(asked.folder / "fit.json") for asked in (swept, slow))
    assert isinstance(a, Fit)
    assert isinstance(b, Fit)
    found = compare(a, b, float(re.search(r"tokens_per_param=([\d.]+)", text)[1]))
    better, worse = ("tiny", "slow") if found.difference[-1] < 0 else ("slow", "tiny")
    assert found.winner
    by = f"{100 * abs(found.difference[-1]):.2f}% ± {100 * found.half[-1]:.2f}%"
    assert f"{better} reaches a loss {by} below that of {worse}" in text
    ends = {asked.name: [asked.store.result(r.id).final_loss for r in asked.runs] for asked in (swept, slow)}
    pairs = np.log(np.array(ends["tiny"][:24]) / ends["slow"])
    assert f"24 runs of the same width, length, schedule and seeds: tiny is better in {(pairs < 0).sum()}" in text
    assert "0.016" in text
    assert "0.004" in text
    assert "nan" not in text
    for name in ("difference", "both"):
        assert (page.parent / "figures" / f"{name}.svg").stat().st_size > 1000
        assert (page.parent / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_crossing_is_that_of_the_laws(swept: Request, slow: Request, tmp_path: Path) -> None:
    path = write_comparison(swept.store, ("slow", "tiny"), 3.0, tmp_path / "report.html")
    a, b = (load_fit(asked.folder / "fit.json") for asked in (slow, swept))
    assert isinstance(a, Fit)
    assert isinstance(b, Fit)
    found = compare(a, b, 3.0)
    assert ("the laws cross at" in words(path)) == (found.crossing is not None)
    assert "at 3 tokens per parameter" in words(path)


def test_a_half_done_sweep_is_compared_and_said_to_be(swept: Request, asking: Callable[..., Request], tmp_path) -> None:
    asked = asking("more", "[{model.width: [16, 24, 32, 48], tokens: [8K, 16K, 32K, 64K], init_seed: [0, 1]}]")
    plan(asked)
    text = words(write_comparison(swept.store, ("tiny", "more"), None, tmp_path / "report.html"))
    assert "Unfinished: more has 24 of 32 runs" in text


def test_what_cannot_be_compared_is_refused_in_a_line(swept: Request, slow: Request) -> None:
    said = command("report", "--compare", "tiny", "nothing", f"store={swept.store.root}", cwd=swept.folder, check=2)
    assert re.fullmatch(
        r"proxytrain report: --compare nothing: no such sweep in store=.*; there are .*tiny.*\n", said.stderr
    )
    for name in ("../out", "nothing"):
        with pytest.raises(RequestError, match=f"--compare {name}: no such sweep"):
            write_comparison(swept.store, ("tiny", name), None, swept.folder / "x.html")
    assert not (swept.folder / "x.html").exists()
