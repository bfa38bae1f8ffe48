"""Reading a table: what is accepted, and a line that helps for what is not."""

import numpy as np
import pandas as pd
import pytest

from proxytrain.errors import RequestError
from proxytrain.fit import fit_losses
from proxytrain.fit.losses.checks import best_settings
from proxytrain.fit.tables.runs import to_levels
from proxytrain.fit.tables.table import read_runs

GOOD = {"params": [1e7, 2e7], "tokens": [1e9, 1e9], "loss": [3.0, 2.9]}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_reads_like_the_arrays_in_it(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    frame = pd.DataFrame(GOOD)
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    assert read_runs(path).hash == read_runs(GOOD).hash == read_runs(frame).hash


def test_the_order_of_rows_and_columns_does_not_matter():
    turned = {k: v[::-1] for k, v in reversed(list(GOOD.items()))}
    assert read_runs(turned).hash == read_runs(GOOD).hash
    assert (read_runs(turned).loss == read_runs(GOOD).loss).all()


def test_unknown_columns_are_ignored_and_listed():
    assert read_runs({**GOOD, "note": ["a", "b"]}).ignored == ("note",)


def test_columns_can_be_renamed():
    table = {"params_nonembedding": [1e7, 2e7], "tokens": [1e9, 1e9], "loss": [3.0, 2.9]}
    assert (read_runs(table, {"params": "params_nonembedding"}).params == [1e7, 2e7]).all()


def test_values_within_one_percent_are_one_level():
    assert len(np.unique(to_levels(np.array([1e6, 1.005e6, 2e6, 1.999e6])))) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": None}, ["no column loss", "params, tokens"]),
        ({"loss": ["3.0", "abc"]}, ["loss in row 2", "'abc'", "not a number"]),
        ({"loss": [3.0, float("nan")]}, ["loss in row 2", "nan", "above 0"]),
        ({"loss": [3.0, float("inf")]}, ["loss in row 2", "inf"]),
        ({"loss": [-1.0, 3.0]}, ["loss in row 1", "-1", "above 0"]),
        ({"loss": [300.0, 3.0]}, ["loss in row 1", "300", "nats per token"]),
        ({"tokens": [12, 1e9]}, ["tokens in row 1", "12", "at least 1000"]),
        ({"params": [7, 70]}, ["params in row 1", "at least 1000"]),
        ({"params": [1e7]}, ["different length"]),
        ({"params": [], "tokens": [], "loss": []}, ["has no rows"]),
    ],
)
def test_a_bad_table_gets_one_line_that_names_it(change, words):
    table = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    with pytest.raises(RequestError) as error:
        read_runs(table)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", "is empty"),
        ("head.csv", b"params,tokens,loss\n", "has no rows"),
        ("t.txt", b"x", "must be .csv, .tsv or .parquet"),
        ("t.parquet", b"not parquet", "cannot be read"),
        ("t.csv", b"params,tokens,loss\n1e7,1e9\n1e7,1e9,3,4,5\n", "cannot be read"),
        ("u.csv", b"\xff\x00\x01", "cannot be read"),
    ],
)
def test_a_bad_file_gets_one_line_that_names_it(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError) as error:
        read_runs(tmp_path / name)
    assert name in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RequestError, match="no such file"):
        read_runs(tmp_path / "gone.csv")


def test_something_that_is_no_table_is_refused():
    with pytest.raises(RequestError, match="must be a DataFrame"):
        read_runs(3)


def test_rows_that_differ_in_an_unknown_column_are_settings_and_the_best_is_kept(grid):
    twice = {k: np.tile(v, 2) for k, v in grid.items()}
    twice["warmup"] = np.repeat([100, 200], 25)
    twice["loss"] = twice["loss"] * np.where(twice["warmup"] == 100, 1.0, 1.02)
    fit = fit_losses(twice, law="chinchilla", bootstraps=20)
    assert fit.data.fitted == 25
    assert any("best setting" in w for w in fit.warnings)
    assert fit.params["alpha"] == pytest.approx(0.35, rel=1e-2)


def test_a_column_called_seed_is_the_seed(grid):
    rng = np.random.default_rng(0)
    twice = {k: np.tile(v, 2) for k, v in grid.items()}
    twice["seed"] = np.repeat([1, 2], 25)
    twice["loss"] = twice["loss"] * np.exp(0.003 * rng.standard_normal(50))
    fit = fit_losses(twice, law="chinchilla", bootstraps=20)
    assert fit.data.fitted == 50
    assert fit.noise.source == "repeated seeds"
    assert 0.002 < fit.noise.run < 0.004


def test_runs_on_less_unique_text_are_not_left_out_as_worse_settings(grid):
    twice = {k: np.tile(v, 2) for k, v in grid.items()}
    share = np.repeat([1.0, 0.25], 25)
    table = {**twice, "loss": twice["loss"] / share**0.05, "unique_tokens": twice["tokens"] * share, "note": share}
    kept, said = best_settings(read_runs(table))
    assert len(kept) == 50
    assert said == []


LINES = pd.DataFrame(GOOD).to_csv(index=False).splitlines()
SPELT = {
    "spaces": "\n".join(line.replace(",", " , ") for line in LINES),
    "a comma at the end of each line": "\n".join(f"{line}," for line in LINES),
    "a comma at the end of each row": "\n".join([LINES[0], *(f"{line}," for line in LINES[1:])]),
    "names of rows, as of R": "\n".join([LINES[0], *(f'"{i}",{line}' for i, line in enumerate(LINES[1:]))]),
    "comments": "\n".join(["# by hand", "# see x, y", *LINES]),
    "a header that is a comment": "\n".join(["# " + LINES[0], *LINES[1:]]),
    "a byte order mark": "\ufeff" + "\n".join(LINES),
    "capitals": "\n".join([LINES[0].title(), *LINES[1:]]),
    "suffixes": "params,tokens,loss\n10M,1B,3.0\n20M,1000M,2.9",
    "thousands": 'params,tokens,loss\n"10,000,000","1,000,000,000",3.0\n"20,000,000","1,000,000,000",2.9',
    "tabs": "\n".join(line.replace(",", "\t") for line in LINES),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("how", SPELT)
def test_a_csv_is_read_however_it_was_written(tmp_path, how, encoding):
    path = tmp_path / "t.csv"
    path.write_text(SPELT[how], encoding=encoding)
    found, clean = read_runs(path), read_runs(GOOD)
    for column in ("params", "tokens", "loss"):
        assert (getattr(found, column) == getattr(clean, column)).all()


def test_an_index_of_a_parquet_file_is_read(tmp_path):
    pd.DataFrame(GOOD).set_index(["params", "tokens"]).to_parquet(tmp_path / "t.parquet")
    assert read_runs(tmp_path / "t.parquet").hash == read_runs(GOOD).hash


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("\n".join(LINES[1:]), "Add a line with the names of the columns"),
        ("params,tokens,loss,loss\n1e7,1e9,3,2", "two columns are named 'loss'"),
        ("\n".join(line.replace(",", ";") for line in LINES), "separated by commas or tabs"),
        ('params,tokens,loss\n1e7,1e9,"3,1"', "loss in row 1 is '3,1', not a number"),
    ],
)
def test_a_csv_that_can_be_read_in_two_ways_is_refused(tmp_path, content, says):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(RequestError, match=says):
        read_runs(tmp_path / "t.csv")


def test_tensors_are_read_whatever_their_precision_and_gradient():
    torch = pytest.importorskip("torch")
    table = {
        "params": torch.tensor(GOOD["params"], dtype=torch.float64, requires_grad=True),
        "tokens": torch.tensor(GOOD["tokens"]).int()[:, None],
        "loss": torch.tensor(GOOD["loss"]).bfloat16(),
    }
    assert read_runs(table).params.tolist() == GOOD["params"]
    with pytest.raises(RequestError, match=r"column loss has shape \(2, 2\)"):
        read_runs({**table, "loss": torch.ones(2, 2)})
