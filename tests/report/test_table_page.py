"""A fit of a table leaves a page with figures and its predictions beside fit.json."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FILES = {"l.csv", "fit.json", "fit.report.html", "fit.predictions.csv", "fit.figures"}


def fitted(folder: Path, *overrides: str, code: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "proxytrain", "fit", "table=l.csv", "fit.bootstraps=40", *overrides]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "fit.predictions.csv").read_text().splitlines()))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5)))
    loss = (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * np.exp(0.002 * np.random.default_rng(0).standard_normal(25))
    lines = ["params,tokens,loss", *(f"{a},{b},{c}" for a, b, c in zip(n, d, loss))]
    (tmp_path / "l.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_table_leaves_a_page_and_predictions(table):
    said = fitted(table, "fit.law=chinchilla", "params=3e9", "tokens=2e11").stdout
    assert {p.name for p in table.iterdir()} == FILES
    assert all(name in said for name in FILES - {"l.csv"})
    page = (table / "fit.report.html").read_text()
    for figure in ("fit", "compute", "residuals", "backtest", "coverage"):
        assert f'id="figure-{figure}"' in page
        for end in ("svg", "png"):
            assert (table / "fit.figures" / f"{figure}.{end}").stat().st_size > 1000
    assert "http" not in page.replace("http://www.w3.org", "")  # nothing is fetched
    found = rows(table)
    runs = [r for r in found if r["kind"] == "run"]
    assert sorted(int(r["row"]) for r in runs) == list(range(1, 26))
    for r in runs:
        assert float(r["residual"]) == pytest.approx(np.log(float(r["loss"]) / float(r["prediction"])), abs=1e-6)
        assert float(r["low"]) < float(r["prediction"]) < float(r["high"])
    assert {r["kind"] for r in found} == {"run", "held out", "frontier"}
    best = [float(r["prediction"]) for r in found if r["kind"] == "frontier"]
    assert len(best) > 10
    assert all(np.diff(best) < 0)


def test_a_refused_target_still_leaves_the_fit(table):
    done = fitted(table, "fit.law=chinchilla", "params=1e15", "tokens=1e15", code=2)
    assert "params=" in done.stderr
    done = fitted(table, "fit.law=chinchilla", "params=9e14", "tokens=9e16", code=1)
    assert done.stderr.startswith("no answer: ")
    assert {p.name for p in table.iterdir()} == FILES


def test_a_table_of_one_variable_has_its_own_figure(tmp_path):
    n = np.geomspace(1e6, 1e9, 8)
    lines = ["params,loss", *(f"{a},{1.8 + 300 * a**-0.35 + 0.003 * np.sin(i)}" for i, a in enumerate(n))]
    (tmp_path / "l.csv").write_text("\n".join(lines) + "\n")
    fitted(tmp_path, "params=3e9")
    page = (tmp_path / "fit.report.html").read_text()
    assert "Final loss against params" in page
    assert 'id="figure-compute"' not in page
    assert {r["kind"] for r in rows(tmp_path)} == {"run", "held out"}
