"""Names and units of other people's curves: read as they are meant, or refused with what to type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from curve_cases import noisy, write

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.curves.columns import as_typed, columns_of_run
from proxytrain.fit.curves.reading import read_curves

NAMES = {"step": "_step", "lr": "optim/learning_rate_group0", "loss": "train/CrossEntropyLoss"}


def same(folder: Path, other: Path, columns: dict[str, str] | None = None) -> list[str]:
    """Check that both folders hold the same curves; return the notes on the first."""
    (a, notes), (b, _) = read_curves(folder, columns), read_curves(other)
    assert [c.name for c in a] == [c.name for c in b]
    for one, two in zip(a, b):
        assert (one.params, one.tokens_per_step) == (two.params, two.tokens_per_step)
        for key in ("lr", "step", "loss"):
            np.testing.assert_allclose(getattr(one, key), getattr(two, key), rtol=1e-12)
    return notes


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clean") / "curves")


@pytest.mark.parametrize("mapped", [None, NAMES])
def test_other_names_give_the_same_curves_and_are_named(tmp_path: Path, clean: Path, mapped: dict[str, str]) -> None:
    folder = write(tmp_path / "c", lambda run, _: run.rename(columns=NAMES))
    notes = same(folder, clean, mapped)
    assert (
        "read '_step' as step, 'optim/learning_rate_group0' as lr, 'train/CrossEntropyLoss' as loss, in all curves"
        in notes
    )


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["Step", "train/lr", "train/loss"], {"step": "Step", "lr": "train/lr", "loss": "train/loss"}),
        (["trainer/global_step", "lr-AdamW", "train_loss"], {"step": "trainer/global_step", "lr": "lr-AdamW"}),
        (["iter", "learning rate", "Train Loss", "Val Loss"], {"loss": "Train Loss", "val_loss": "Val Loss"}),
        (["step", "lr", "loss", "eval/loss"], {"loss": "loss"}),
        (["step", "tokens", "lr", "loss"], {"step": "step"}),
        (["tokens", "lr", "loss"], {"tokens": "tokens"}),
        (["step", "lr", "eval/loss"], {"loss": "eval/loss"}),
    ],
)
def test_names_that_leave_no_doubt_are_recognised(names: list[str], found: dict[str, str]) -> None:
    read = columns_of_run(names, {}, "a.csv")
    assert {**read, **found} == read
    assert len(set(read.values())) == len(read)
    assert "eval/loss" not in read.values() or "loss" not in names


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["_step", "lr_a", "lr_b", "loss"], r"no column lr; .*lr may be lr_a or lr_b.*'fit.columns=\{lr:lr_a\}'"),
        (["step", "lr", "train/loss", "aux/loss"], r"loss may be train/loss or aux/loss"),
        (["step", "rate", "train loss (nats)"], r"'fit.columns=\{lr:NAME_OF_LR,loss:NAME_OF_LOSS\}'"),
    ],
)
def test_names_in_doubt_are_listed_with_what_to_type(names: list[str], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        columns_of_run(names, {}, "a.csv")


def test_what_is_to_be_typed_quotes_names_with_spaces() -> None:
    assert as_typed({"lr": "optim/lr", "loss": "loss (nats)"}) == "'fit.columns={lr:optim/lr,loss:\"loss (nats)\"}'"


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"steps": "step"}, r"no such column .did you mean step\?.\. Use step, tokens, lr"),
        ({"loss": "train/los"}, "fit.columns=loss:train/los: .*run_0.csv has no such column.*It has step, lr, loss"),
        ({"params": "N"}, "fit.columns=params:N: .*index.csv has no such column"),
        ({"step": "step", "tokens": "step"}, "both step and tokens"),
    ],
)
def test_mapped_names_that_do_not_exist_are_refused(clean: Path, columns: dict[str, str], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        read_curves(clean, columns)


def test_columns_of_the_index_are_mapped_recognised_and_may_have_suffixes(tmp_path: Path, clean: Path) -> None:
    names = [f"run_{j}" for j in range(9)]
    sizes = ["1M", "1M", "1M", "3M", "3M", "3M", "9M", "9M", "9M"]
    index = {"file": None, "params": None, "tokens_per_step": None, "batch_tokens": 2048}
    same(write(tmp_path / "a", **index, run_name=names, num_params=sizes), clean)
    same(write(tmp_path / "b", **index, label=names, N=sizes), clean, {"file": "label", "params": "N"})


def test_an_index_without_params_says_what_it_does_not_read(tmp_path: Path) -> None:
    _, notes = read_curves(write(tmp_path / "c", params=None, size=[1] * 9))
    assert "index.csv has no params, so all runs count as one size; not read: size" in notes


def test_steps_that_count_tokens_become_updates(tmp_path: Path, clean: Path) -> None:
    folder = write(tmp_path / "c", lambda run, _: run.assign(step=run.step * 2048))
    notes = same(folder, clean)
    assert any(n.startswith("steps of run_0, run_1") and "count tokens: divided by tokens_per_step" in n for n in notes)


def test_a_column_of_tokens_stands_for_steps(tmp_path: Path, clean: Path) -> None:
    as_tokens = write(
        tmp_path / "a", lambda run, _: run.assign(step=run.step * 2048).rename(columns={"step": "tokens"})
    )
    same(as_tokens, clean)
    seen = write(tmp_path / "b", lambda run, _: run.assign(seen=run.step * 2048).drop(columns="step"))
    same(seen, clean, {"tokens": "seen"})
    with pytest.raises(RequestError, match="tokens_per_step is not known"):
        read_curves(write(tmp_path / "c", lambda run, _: run.rename(columns={"step": "tokens"}), tokens_per_step=None))
    with pytest.raises(RequestError, match="no multiple of tokens_per_step=3000"):
        read_curves(
            write(
                tmp_path / "d",
                lambda run, _: run.assign(tokens=run.step * 2048).drop(columns="step"),
                tokens_per_step=3000,
            )
        )


def every_call(run: pd.DataFrame, _: int) -> pd.DataFrame:
    """Four calls per update, each with a row."""
    out = run.loc[run.index.repeat(4)]
    return out.assign(step=np.arange(1, len(out) + 1))


QUESTIONS = [
    (
        lambda run, _: run.assign(step=run.step * 2048),
        5,
        {"tokens_per_step": None},
        r"or tokens\?.*fit.columns=.tokens:step.",
    ),
    (lambda run, _: run[run.step % 64 == 0], 1, {"tokens_per_step": 64}, r"multiples of tokens_per_step=64: tokens or"),
    (every_call, 1, {}, r"lr changes at every step 4 only: are 4 calls one update"),
    (lambda run, _: run.assign(step=run.step / 1000), 5, {}, "is no whole number.*Epochs"),
]


@pytest.mark.parametrize(("change", "every", "index", "says"), QUESTIONS)
def test_steps_that_may_count_something_else_are_a_question(tmp_path: Path, change, every, index, says) -> None:
    with pytest.raises(RequestError, match=says):
        read_curves(write(tmp_path / "c", change, every, **index))


@pytest.mark.parametrize("question", QUESTIONS[1:3])
def test_naming_the_column_of_steps_answers_the_question(tmp_path: Path, question) -> None:
    change, every, index, _ = question
    curves, _ = read_curves(write(tmp_path / "c", change, every, **index), {"step": "step"})
    assert len(curves) == 9


def test_rates_that_repeat_because_they_are_rounded_are_no_calls(tmp_path: Path) -> None:
    curves, _ = read_curves(write(tmp_path / "c", lambda run, _: run.round({"lr": 6}), 1))
    assert len(curves) == 9


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (lambda run: 0 * run.loss, "loss has 0 in every row; nats per token"),
        (lambda run: 0 * run.loss + 3, "loss is 3 in every row"),
        (lambda run: np.exp(run.loss), "Perplexities need their natural logarithm"),
        (lambda run: 0.6 - run.loss / 20, "stays below 1: an accuracy"),
        (lambda run: run.loss * 2048, "sums must be divided by tokens"),
    ],
)
def test_values_that_are_no_losses_name_the_likely_unit(tmp_path: Path, loss, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        read_curves(write(tmp_path / "c", lambda run, _: run.assign(loss=loss(run))))


@pytest.mark.parametrize(
    ("name", "unit"), [("train/ppl", "perplexity"), ("val_bpb", "bits per byte"), ("acc", "accur")]
)
def test_a_column_named_after_another_unit_is_refused(clean: Path, tmp_path: Path, name: str, unit: str) -> None:
    folder = write(tmp_path / "c", lambda run, _: run.rename(columns={"loss": name}))
    with pytest.raises(RequestError, match=unit):
        read_curves(folder, {"loss": name})


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"params": [n / 1e6 for n in (1e6, 3e6, 9e6)] * 3}, "params=1 in row 1.*In millions"),
        ({"params": ["ten"] * 9}, "'ten', not a number"),
        ({"file": ["run_0.csv"] * 9}, "listed twice"),
        ({"params": None, "params_total": 1e6, "params_active": 1e6}, "may both be params"),
    ],
)
def test_an_index_that_cannot_be_meant_is_refused(tmp_path: Path, index: dict[str, object], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        read_curves(write(tmp_path / "c", **index))


def test_far_too_few_tokens_per_parameter_are_named(tmp_path: Path) -> None:
    _, notes = read_curves(
        write(tmp_path / "c", params=[n * 1e3 for n in (1e6, 3e6, 9e6) for _ in range(3)], tokens_per_step=1)
    )
    assert any("tokens per parameter: check that step counts updates" in n for n in notes)


def test_peaks_in_two_units_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"peaks from 0\.001 to 100 in one fit"):
        read_curves(write(tmp_path / "c", lambda run, j: run.assign(lr=run.lr * 1e5) if j == 2 else run))


def test_a_last_rate_of_zero_after_a_constant_rate_is_put_right(tmp_path: Path) -> None:
    constant = np.minimum(np.arange(1, 3001) / 100, 1)

    def last_zero(run: pd.DataFrame, j: int) -> pd.DataFrame:
        return run.assign(lr=np.where(run.step < 3000, 1e-3 * constant, 0)) if j == 0 else run

    (first, *_), notes = read_curves(write(tmp_path / "c", last_zero))
    assert (first.lr[200:] == 1e-3).all()
    assert "the last rate of run_0 is 0 after a constant rate: read as that rate" in notes


def test_a_decay_to_zero_is_read_as_it_is(tmp_path: Path) -> None:
    (first, *_), notes = read_curves(
        write(tmp_path / "c", lambda run, _: run.assign(lr=1e-3 * (1 - run.step / len(run))))
    )
    assert first.lr[-1] == 0
    assert not any("last rate" in n for n in notes)


def test_rows_of_one_step_that_complete_each_other_become_one(tmp_path: Path, clean: Path) -> None:
    folder = write(tmp_path / "c")
    for path in folder.glob("run_*.csv"):
        run = pd.read_csv(path)
        parts = [run.assign(loss=np.nan), run.assign(lr=np.nan), run]
        pd.concat(parts).sort_values("step", kind="stable").to_csv(path, index=False)
    same(folder, clean)


@pytest.mark.parametrize("restart", [500, 2995])
def test_a_resumed_run_whose_steps_restart_is_refused_with_what_to_do(tmp_path: Path, restart: int) -> None:
    folder = write(tmp_path / "c")
    run = pd.read_csv(folder / "run_0.csv")
    pd.concat([run, run[run.step >= restart] * [1, 1, 1.01]]).to_csv(folder / "run_0.csv", index=False)
    with pytest.raises(RequestError, match=rf"step {restart} in row 601 comes after 3000; steps must rise\. Of a run"):
        read_curves(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_run_whose_losses_stop_being_finite_is_left_out_by_name(tmp_path: Path, value: float) -> None:
    def broken(run: pd.DataFrame, j: int) -> pd.DataFrame:
        return run.assign(loss=run.loss.where((run.step <= 1200) | (j != 4), value))

    curves, notes = read_curves(write(tmp_path / "c", broken))
    assert "run_4" not in [c.name for c in curves]
    assert any(n.startswith("left out run_4: its loss is empty or not finite from step 1,205 on") for n in notes)
    with pytest.raises(Refusal, match="No curve is left"):
        read_curves(write(tmp_path / "d", lambda run, _: run.assign(loss=run.loss.where(run.step <= 1200, value))))


def test_rows_without_a_loss_between_others_are_no_divergence(tmp_path: Path) -> None:
    curves, notes = read_curves(
        write(tmp_path / "c", lambda run, _: run.assign(loss=run.loss.where(run.step % 50 == 0)))
    )
    assert len(curves) == 9
    assert not any("left out" in n for n in notes)


def test_files_that_the_index_does_not_list_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "c")
    noisy(1e6, "wsd", 100, 0).to_csv(folder / "extra.csv", index=False)
    assert "not listed in index.csv and not read: extra.csv" in read_curves(folder)[1]


def test_semicolons_are_named_and_a_mark_at_the_start_of_a_file_is_dropped(tmp_path: Path, clean: Path) -> None:
    folder = write(tmp_path / "c")
    for path in folder.glob("*.csv"):
        path.write_text(path.read_text(), encoding="utf-8-sig")
    same(folder, clean)
    (folder / "run_3.csv").write_text((folder / "run_3.csv").read_text(encoding="utf-8-sig").replace(",", ";"))
    with pytest.raises(RequestError, match="Separate columns by commas"):
        read_curves(folder)


def test_rows_that_repeat_the_loss_before_them_are_left_out(tmp_path: Path) -> None:
    sparse = write(tmp_path / "a", lambda run, _: run.assign(loss=run.loss.where(run.step % 50 == 5)))
    filled = write(tmp_path / "b", lambda run, _: run.assign(loss=run.loss.where(run.step % 50 == 5).ffill()))
    (a, _), (b, notes) = read_curves(sparse), read_curves(filled)
    assert all((one.step == two.step).all() for one, two in zip(a, b))
    assert any(n.startswith("left out 4,050 rows of run_0") and n.endswith("as if filled forward") for n in notes)


def test_the_lowest_loss_so_far_is_no_loss_of_a_row(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="never rises and mostly stays equal: the lowest so far"):
        read_curves(write(tmp_path / "c", lambda run, _: run.assign(loss=run.loss.cummin())))


def test_comment_lines_and_thousands_marks_are_read(tmp_path: Path, clean: Path) -> None:
    folder = write(tmp_path / "c", params=[f"{n:,.0f}" for n in (1e6, 3e6, 9e6) for _ in range(3)])
    path = folder / "run_0.csv"
    path.write_text("# exported\n# by somebody\n" + path.read_text())
    same(folder, clean)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "c")
    rows = (folder / "run_0.csv").read_text().splitlines()
    (folder / "run_0.csv").write_text("\n".join(["step,lr,loss,loss", *(f"{row},9.9" for row in rows[1:])]))
    with pytest.raises(RequestError, match="two columns are named 'loss'"):
        read_curves(folder)
