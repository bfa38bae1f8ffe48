"""Inputs from public reports that once led to a wrong answer without a word, through the command as users run it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import proxytrain

MAKE = Path(__file__).parents[2] / "shared" / "cases" / "make_cases.py"
pytestmark = pytest.mark.skipif(not MAKE.is_file(), reason="the generator of cases (../shared/cases) is not at hand")

FIT = ["fit.law=chinchilla", "fit.bootstraps=20", "params=400M", "tokens=6.4B"]
TINY = [
    *("model.width=16", "model.head_size=8", "model.context=32", "parametrization.base_width=16", "batch_tokens=256"),
    *("warmup=1024", "tokens=8192", "train.device=cpu", "data.val_tokens=2048"),
]
PLANTED = 2.6297  # nats per token at that target
TABLES = {  # exit code, text, and whether the planted loss must lie inside the interval
    "unknown_axis": (0, "weight_decay (of 3 values): 0.1 at 20 of 20", True),
    "splits": (2, "Choose one, as fit.where={split: val}", False),
    "index_column": (0, "not used: Unnamed: 0 (a value of its own in each row)", True),
    "checkpoints_of_cosine_runs": (1, "only the last row of each is a finished run", False),
    "one_diverged_but_finite": (1, "row 8 (7.6, 1.88 times 4.05", False),
    "rounded_twice": (0, "left out 40 rows that repeat another run with nearly the same loss", True),
}
TEXTS = {
    **dict.fromkeys(("part-00000.json.gz", "part.json", "part.jsonl.xz", "part.jsonl.bz2", "documents.csv"), (0, "")),
    "with_separators.txt": (0, "<|endoftext|> in the text separates documents, 799 times"),
    "texts.tar.gz": (2, "is a tar archive, which is not read as text. Unpack it, and name the files inside."),
}
TOKENS = {
    "uint32_without_header.bin": (2, "has zeros in every second place, as uint32 tokens have. Set data.dtype=uint32."),
    "int64_without_header.bin": (2, "has zeros in three of four places, as int64 tokens have."),
    "saved_by_numpy.npy": (0, "tokens: 198,000 for training, 2,000 for validation"),
    "characters_under_a_large_vocabulary.bin": (0, "the highest token id is 64 of a vocabulary of 50,257"),
}
CURVES = {
    "smoothed": "SMOOTHED",
    "one_spike": "left out updates 1,505 to 1,625 of run_4: a spike",
    "one_diverges": "left out run_4: it diverges",
    "other_names": "train/CrossEntropyLoss",
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, str(MAKE), str(folder)], check=True)
    return folder


@pytest.mark.parametrize("name", TABLES)
def test_tables(cases, tmp_path, name):
    code, says, covered = TABLES[name]
    done = proxytrain("fit", f"table={cases}/tables/{name}.csv", *FIT, cwd=tmp_path, check=code)
    assert says in done.stdout + done.stderr
    if covered:
        low, high = map(float, re.search(r"target: \S+ \[(\S+), (\S+)\]", done.stdout).groups())
        assert low < PLANTED < high
        assert high - low < 0.25


@pytest.mark.parametrize("name", ["one_diverged_but_finite", "splits"])
def test_tables_once_the_question_is_answered(cases, tmp_path, name):
    answer = {"one_diverged_but_finite": "fit.outliers=drop", "splits": "fit.where={split: val}"}[name]
    done = proxytrain("fit", f"table={cases}/tables/{name}.csv", answer, *FIT, cwd=tmp_path)
    low, high = map(float, re.search(r"target: \S+ \[(\S+), (\S+)\]", done.stdout).groups())
    assert low < PLANTED < high


@pytest.mark.parametrize("name", TEXTS)
def test_texts(cases, tmp_path, name):
    code, says = TEXTS[name]
    done = proxytrain("plan", "data=files", f"data.files=[{cases}/texts/{name}]", *TINY, cwd=tmp_path, check=code)
    assert says in done.stdout + done.stderr
    if not code:
        assert 'text: 764 training and 36 validation documents; it begins:\n"Market morning time' in done.stdout


@pytest.mark.parametrize("name", TOKENS)
def test_tokens(cases, tmp_path, name):
    code, says = TOKENS[name]
    done = proxytrain("plan", "data=tokens", f"data.train=[{cases}/tokens/{name}]", *TINY, cwd=tmp_path, check=code)
    assert says in done.stdout + done.stderr


@pytest.mark.parametrize("name", CURVES)
def test_curves(cases, tmp_path, name):
    done = proxytrain("fit", f"curves={cases}/curves/{name}", "fit.law=progress", cwd=tmp_path)
    assert CURVES[name] in done.stdout


def test_curves_under_mapped_names(cases, tmp_path):
    names = 'fit.columns={step:_step,lr:"optim/learning_rate_group0",loss:"train/CrossEntropyLoss"}'
    done = proxytrain("fit", f"curves={cases}/curves/other_names", "fit.law=progress", names, cwd=tmp_path)
    assert "9 curves under 2 schedules" in done.stdout
