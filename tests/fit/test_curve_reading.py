"""Folders of curves: what is read, what is assumed, and how bad files are named."""

from __future__ import annotations

from pathlib import Path

import curve_data
import numpy as np
import pytest
from curve_data import curve

from proxytrain.errors import RequestError
from proxytrain.fit import fit_curves
from proxytrain.fit.curves.reading import read_curves

ROWS = "step,lr,loss\n100,0.001,4.0\n200,0.001,3.5\n300,0.0005,3.2\n"


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_a_folder_is_read(tmp_path: Path) -> None:
    write(tmp_path, a=ROWS, b="step,lr,train_loss,val_loss\n1,0.001,9.0,\n50,0.001,5.0,5.1\n100,,4.0,4.2\n")
    write(tmp_path, index="run,params,tokens_per_step\na,1e6,512\nb,2e6,512\n")
    (a, b), notes = read_curves(tmp_path)
    assert (a.name, a.params, a.tokens_per_step, a.updates) == ("a", 1e6, 512.0, 300)
    np.testing.assert_allclose(a.lr[[49, 99, 199, 249, 299]], [0.0005, 0.001, 0.001, 0.00075, 0.0005])
    assert b.lr.tolist() == [0.001] * 100
    assert b.val_step is not None
    assert b.val_loss is not None
    assert (b.step.tolist(), b.val_step.tolist(), b.val_loss.tolist()) == ([1, 50, 100], [50, 100], [5.1, 4.2])
    assert any("interpolated" in n for n in notes)
    assert any("1 curves start after update 1" in n for n in notes)


def test_without_an_index_every_file_is_a_run(tmp_path: Path) -> None:
    curves, _ = read_curves(write(tmp_path, a=ROWS, b=ROWS))
    assert [(c.name, c.params) for c in curves] == [("a", None), ("b", None)]


def test_a_folder_fits_as_its_curves_do(tmp_path: Path) -> None:
    curves = [curve(k, sd=0.002) for k in ("constant", "cosine")]
    for c in curves:
        rows = [f"{s},{c.lr[s - 1]:.17g},{v:.17g}" for s, v in zip(c.step.tolist(), c.loss.tolist())]
        (tmp_path / f"{c.name}.csv").write_text("\n".join(["step,lr,loss", f"1,{c.lr[0]:.17g},", *rows]))
    fit = fit_curves(tmp_path, law="kernel")
    assert fit.predict(curve_data.rates("wsd")).final == pytest.approx(
        fit_curves(sorted(curves, key=lambda c: c.name), law="kernel").predict(curve_data.rates("wsd")).final, rel=5e-4
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no CSV file"),
        ({"a": ""}, "is empty"),
        ({"a": "step,lr,loss\n"}, "has no rows"),
        ({"a": "step,loss\n1,3.0\n"}, "no column lr; it has step, loss"),
        ({"a": "step,lr\n1,3.0\n"}, "no column loss"),
        ({"a": "step,lr,loss\n1,0.1,three\n"}, "loss in row 1 is 'three', not a number"),
        ({"a": "step,lr,loss\n1,0.1,3.0\n1,0.1,2.9\n"}, "step 1 in row 2 comes after 1; steps must rise"),
        ({"a": "step,lr,loss\n5,0.1,3.0\n4,0.1,2.9\n"}, "step 4 in row 2 comes after 5"),
        ({"a": "step,lr,loss\n1,,3.0\n"}, "column lr has no values"),
        ({"a": "step,lr,loss\n1,0.1,\n"}, "column loss has no values"),
        ({"a": "step,lr,loss\n1,0.1,300\n"}, "300 in row 1; nats per token"),
        ({"a": "step,lr,loss\n1,-0.1,3.0\n"}, "learning rates are 0 or more"),
        ({"a": "step,lr,loss\n1e12,0.1,3.0\n"}, "updates, from 1 to 1e8"),
        ({"a": ROWS, "index": "params\n1e6\n"}, "no column file, run, name"),
        ({"a": ROWS, "index": "run\nb\n"}, "names 'b', but there is no b.csv"),
        ({"a": ROWS, "index": "run\na\na\n"}, "'a' is listed twice"),
        ({"a": ROWS, "index": "run,params\na,big\n"}, "params in row 1 is 'big', not a number"),
        ({"a": ROWS, "index": "run,params\na,7\n"}, "params=7 in row 1; must be a number of at least 1000"),
        ({"a": ROWS, "index": "run\n../../a\n"}, "lies outside the folder"),
    ],
)
def test_bad_folders(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_curves(write(tmp_path, **files))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such folder"):
        fit_curves(tmp_path / "none")
    (tmp_path / "a").write_text("x")
    with pytest.raises(RequestError, match="not a folder"):
        fit_curves(tmp_path / "a")
