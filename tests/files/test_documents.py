"""JSON documents: whole or absent, checked against their class, and never what cannot be read back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxytrain.errors import RequestError
from proxytrain.files.documents import Document, checksum, read_document, write_document


class Note(Document, frozen=True, kw_only=True):
    text: str
    share: float | None = None


def test_a_document_is_replaced_whole(tmp_path: Path) -> None:
    write_document(tmp_path / "x.json", Note(text="a", share=0.5))
    with pytest.raises(ValueError, match="JSON compliant"):
        write_document(tmp_path / "x.json", Note(text="b", share=float("nan")))
    assert read_document(tmp_path / "x.json", Note, "delete it") == Note(text="a", share=0.5)
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_field_that_was_added_later_has_its_default_in_old_files(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"text": "a", "of a newer version": 3}')
    assert read_document(tmp_path / "x.json", Note, "delete it") == Note(text="a")


def test_writers_that_are_killed_leave_whole_files(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from proxytrain.files.documents import write_document\n"
        "while True: write_document(Path(sys.argv[1]), list(range(50_000)))"
    )
    target = tmp_path / "x.json"
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", code, str(target)])
        while not target.exists():
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert json.loads(target.read_text()) == list(range(50_000))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"text": 3}', '{"text": null}', "\xff", "[" * 100_000, ""])
def test_a_file_that_is_something_else_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(RequestError, match=r"x\.json: not what proxytrain writes there .*; delete it"):
        read_document(tmp_path / "x.json", Note, "delete it")


def test_an_absent_file_is_none(tmp_path: Path) -> None:
    assert read_document(tmp_path / "absent.json", Note, "delete it") is None


def test_a_checksum_is_of_what_a_document_says_not_of_its_layout() -> None:
    assert checksum({"a": 1, "b": [2]}) == checksum(json.loads('{"b":\n[2],"a":1}')) != checksum({"a": 1, "b": [3]})
