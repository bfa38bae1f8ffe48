"""Files are whole or absent; the first to publish wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxytrain.errors import RequestError
from proxytrain.files.atomic import publishing
from proxytrain.store.store import Store


def publish(target: Path, text: str) -> None:
    with publishing(target, "file") as folder:
        (folder / "file").write_text(text)


def test_the_first_to_publish_wins_and_nothing_else_is_left(tmp_path):
    publish(tmp_path / "a" / "b", "first")
    publish(tmp_path / "a" / "b", "second")
    assert (tmp_path / "a" / "b" / "file").read_text() == "first"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_what_was_published_while_a_later_one_was_written_stays(tmp_path):
    with publishing(tmp_path / "a", "file") as folder:
        (folder / "file").write_text("second")
        (folder / "more").write_text("second")
        publish(tmp_path / "a", "first")
        inode = (tmp_path / "a").stat().st_ino
    assert (tmp_path / "a").stat().st_ino == inode
    assert {p.name: p.read_text() for p in (tmp_path / "a").iterdir()} == {"file": "first", "more": "second"}


def test_a_folder_that_lost_its_record_is_replaced_with_all_in_it(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("of another stretch")
    publish(tmp_path / "a", "new")
    assert {p.name: p.read_text() for p in (tmp_path / "a").iterdir()} == {"file": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_what_fails_on_the_way_is_not_published(tmp_path):
    def fail() -> None:
        with publishing(tmp_path / "a", "file") as folder:
            (folder / "file").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_s_name_cannot_leave_the_store(tmp_path):
    for name in ("../x", "a/b", "", ".hidden"):
        with pytest.raises(RequestError, match=r"sweep\.name="):
            Store(tmp_path).sweep(name)


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RequestError, match="no such run"):
        Store(tmp_path).curve("abc")
