"""The beginning of the prepared text is shown as it is trained, and breaks no terminal."""

import json
import subprocess
import sys

import numpy as np
import pytest
from samples import DOCS

from proxytrain.corpus import load, prepare, preview
from proxytrain.corpus.preview import CHARACTERS, printable


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_it_is_the_first_training_text(tmp_path, files_data, tokenizer):
    (tmp_path / "a.json").write_text(json.dumps(DOCS))
    corpus = prepare(files_data(files=[f"{tmp_path}/a.json"], tokenizer=tokenizer), tmp_path / "root")
    shown = preview(corpus)
    assert shown.documents == (corpus.manifest.train_documents, corpus.manifest.val_documents)
    assert len(shown.begins) == CHARACTERS
    assert any(text.startswith(shown.begins) for text in DOCS)


def test_ends_of_documents_are_shown(tmp_path, files_data):
    for k in range(40):
        (tmp_path / f"{k}.md").write_text(f"text {k}")
    corpus = prepare(files_data(files=[f"{tmp_path}/*.md"]), tmp_path / "root")
    assert preview(corpus).begins.count("<|endoftext|>text") > 5


def test_ready_tokens_show_their_ids(tmp_path, tokens_data):
    (np.arange(900, dtype=np.uint16) % 65).tofile(tmp_path / "a.bin")
    corpus = prepare(tokens_data([tmp_path / "a.bin"]), tmp_path / "root")
    assert preview(corpus).lines(corpus) == [
        "tokens: 850 for training, 50 for validation; highest token id 64 of a vocabulary of 1,000",
        "first ids: 0 1 2 3 4 5 6 7 8 9 10 11",
    ]


def test_what_does_not_print_is_escaped():
    assert printable("a\x1b[2J\r\n\u202eb\ud800\0é模") == "a\\x1b[2J\\r\\n\\u202eb\\ud800\\x00é模"


def test_a_manifest_of_an_earlier_version_can_be_read_and_shown(tmp_path, files_data):
    corpus = prepare(files_data(), tmp_path / "root")
    path = corpus.folder / "manifest.json"
    old = json.loads(path.read_text())
    for name in ("notices", "unknown_share", "surviving_share"):
        del old[name]
    path.write_text(json.dumps(old))
    assert preview(load(tmp_path / "root", corpus.folder.name)).begins == preview(corpus).begins


@pytest.fixture
def planned(tmp_path):
    """Runs `plan` on hostile text under an encoding of standard output."""
    for k in range(60):
        (tmp_path / f"{k}.md").write_text(f"<b>\x1b[2J\u202e模{k}</b>\n" * 40)

    def run(*words: str, encoding: str = "utf-8") -> str:
        command = [sys.executable, "-m", "proxytrain", "plan", "data=files", f"data.files=[{tmp_path}/*.md]"]
        command += ["data.val_fraction=0.2", "data.val_tokens=1000", "model.context=32", "batch_tokens=256", *words]
        env = {"PYTHONIOENCODING": encoding, "PATH": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=True)
        return done.stdout.decode(encoding)

    return run


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_plan_shows_the_beginning_of_the_text(planned, encoding):
    character = "模" if encoding == "utf-8" else "\\u6a21"
    shown = planned(encoding=encoding)
    assert "training and" in shown
    assert f'"<b>\\x1b[2J\\u202e{character}' in shown
    assert "\x1b" not in shown


def test_plan_in_json_has_the_beginning_of_the_text(planned):
    text = json.loads(planned("--json"))["text"]
    assert sum(text["documents"]) == 60
    assert text["begins"].startswith("<b>\\x1b[2J")
    assert text["notices"] == []
