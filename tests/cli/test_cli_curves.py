"""Loss curves on the command line: a folder of anybody's, and a sweep's own runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support import TINY, TINY_TEXT, proxytrain

UPDATES = 3000


def folder(path: Path) -> Path:
    """Two curves of a planted power law with instant annealing, as CSV."""
    path.mkdir()
    s = np.arange(1, UPDATES + 1)
    rise = np.minimum(1.0, s / 150)
    rng = np.random.default_rng(0)
    for name, lr in (("hold", rise), ("cosine", rise * (0.55 + 0.45 * np.cos(np.pi * s / UPDATES)))):
        loss = 2.5 + 1.2 * (np.cumsum(lr) / 1000) ** -0.5 + 0.15 * lr**0.8
        loss = loss * (1 + 0.003 * rng.standard_normal(UPDATES))
        rows = [f"{i},{1e-3 * lr[i - 1]:.9g},{loss[i - 1]:.6f}" for i in range(100, UPDATES + 1, 5)]
        (path / f"{name}.csv").write_text("\n".join(["step,lr,loss", f"1,{1e-3 * lr[0]:.9g},", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    cwd = tmp_path_factory.mktemp("curves")
    folder(cwd / "mine")
    (cwd / "said.txt").write_text(proxytrain("fit", "curves=mine", "file=mine.json", cwd=cwd).stdout)
    return cwd


def test_a_folder_is_fitted_and_drawn(fitted):
    said = (fitted / "said.txt").read_text()
    assert "2 curves under 2 schedules" in said
    assert "written to mine.json; pictures: mine_curves.png, mine_curves.svg" in said
    assert (fitted / "mine_curves.png").read_bytes().startswith(b"\x89PNG")
    fit = json.loads((fitted / "mine.json").read_text())
    assert fit["format"] == "proxytrain curve fit 2"
    assert fit["params"]["L0"] == pytest.approx(2.5, rel=0.08)


def test_the_curve_of_another_schedule(fitted):
    asked = ["file=mine.json", "tokens=3000", "batch_tokens=1", "warmup=150", "lr=1e-3", "schedule=wsd"]
    said = proxytrain("predict", *asked, cwd=fitted).stdout
    assert "predicted loss at the end of one run with 3,000 tokens, wsd" in said
    assert "best linear decay" in said
    rows = np.genfromtxt(fitted / "predicted_curve.csv", delimiter=",", names=True)
    assert len(rows) == UPDATES
    assert (rows["low"] < rows["loss"]).all()
    answer = json.loads(proxytrain("predict", *asked, "--json", cwd=fitted).stdout)
    assert answer["loss"] == pytest.approx(rows["loss"][-1], rel=1e-5)


def renamed(cwd: Path, names: dict[str, str]) -> None:
    """The same folder under other names."""
    (cwd / "theirs").mkdir(exist_ok=True)
    for path in (cwd / "mine").glob("*.csv"):
        header, rows = path.read_text().split("\n", 1)
        (cwd / "theirs" / path.name).write_text(",".join(names[c] for c in header.split(",")) + "\n" + rows)


def test_columns_under_other_names_are_mapped_and_give_the_same_fit(fitted):
    renamed(fitted, {"step": "_step", "lr": "optim/group 0 (lr)", "loss": "train/loss"})
    done = proxytrain("fit", "curves=theirs", "file=theirs.json", cwd=fitted, check=2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert "fit.columns={lr:NAME_OF_LR}" in done.stderr
    columns = 'fit.columns={lr:"optim/group 0 (lr)"}'
    said = proxytrain("fit", "curves=theirs", columns, "file=theirs.json", cwd=fitted).stdout
    assert "read '_step' as step, 'optim/group 0 (lr)' as lr, 'train/loss' as loss, in all curves" in said
    theirs, mine = (json.loads((fitted / f"{name}.json").read_text()) for name in ("theirs", "mine"))
    assert theirs["params"] == mine["params"]
    assert theirs["warnings"] != mine["warnings"]


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["fit", "curves=none"], "curves=none: no such folder", 2),
        (["fit", "curves=mine", "table=x.csv"], "a fit reads one of them", 2),
        (["fit", "curves=mine", "fit.columns={los:loss}"], "fit.columns=los: curves have no such column", 2),
        (["fit", "curves=mine", "fit.columns={loss:los}"], "fit.columns=loss:los: mine/cosine.csv has no such", 2),
        (["fit", "curves=mine", "fit.law=chinchilla"], "allowed are auto, progress", 2),
        (["predict", "file=mine.json", "batch_tokens=1"], "tokens=null: a curve has a length", 2),
        (["predict", "file=mine.json", "tokens=10", "batch_tokens=100"], "shorter than one update", 2),
        (["predict", "file=mine.json", "tokens=1e6", "batch_tokens=1", "warmup=150"], "beyond the curves", 1),
    ],
)
def test_what_is_wrong_ends_in_one_line(arguments, says, code, fitted):
    done = proxytrain(*arguments, cwd=fitted, check=code)
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_sweep_s_own_curves_predict_its_target(tmp_path, corpora):
    """Real runs, two schedules and three sizes: the fit reads the store and speaks of validation loss."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    widths = "model.width:[16,24,32]"
    grid = f"sweep.grids=[{{{widths},schedule:[wsd,cosine],tokens:65536}},{{{widths},tokens:32768}}]"
    asked = [
        *TINY_TEXT,
        *TINY,
        "sweep.name=c",
        grid,
        "sweep.target={model:{width:40},tokens:65536}",
        "launch.workers=1",
    ]
    proxytrain("sweep", *asked, cwd=tmp_path, check=None)  # ten runs may be too few for a law of final losses
    done = proxytrain("fit", *asked, "curves=sweep", cwd=tmp_path)
    assert "9 curves under" in done.stdout
    assert "3 sizes" in done.stdout
    assert "predictions are of validation loss" in done.stdout
    assert "predicted validation loss at the end of one run" in done.stdout
    assert (tmp_path / "runs" / "sweeps" / "c" / "curve_fit.json").exists()
