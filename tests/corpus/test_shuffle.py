"""The shuffle keeps every unit, in an order that does not depend on how it is done, in little memory."""

import numpy as np
import pytest

from proxytrain.corpus import shuffle
from proxytrain.corpus.shuffle import Shuffle


def shuffled(folder, lines, seed=0):
    shuffling = Shuffle(folder, seed, ord("\n"))
    for line in lines:
        shuffling.add(line)
    blocks = list(shuffling.blocks())
    assert all(lengths.sum() == len(text) for text, lengths in blocks)
    return b"".join(text.tobytes() for text, _ in blocks).splitlines(keepends=True)


def test_every_line_is_kept_once(tmp_path):
    lines = [b"line %d\n" % (i // 2) for i in range(5000)] + [b"\n"] * 100
    assert sorted(shuffled(tmp_path / "a", lines)) == sorted(lines)


def test_lines_move_over_the_whole_text(tmp_path):
    order = np.array([int(line) for line in shuffled(tmp_path / "a", [b"%d\n" % i for i in range(20_000)])])
    assert abs(np.corrcoef(order, np.arange(20_000))[0, 1]) < 0.03
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.03


def test_seeds_have_their_own_orders(tmp_path):
    lines = [b"%d\n" % i for i in range(100)]
    assert shuffled(tmp_path / "a", lines, seed=0) != shuffled(tmp_path / "b", lines, seed=1)


def test_the_order_does_not_depend_on_blocks_and_buckets(tmp_path, monkeypatch):
    lines = [b"%d %s\n" % (i, b"x" * (i % 50)) for i in range(20_000)]
    plain = shuffled(tmp_path / "a", lines)
    monkeypatch.setattr(shuffle, "CHUNK", 10_000)
    monkeypatch.setattr(shuffle, "BUCKET", 1_000)  # buckets of buckets of buckets
    assert shuffled(tmp_path / "b", lines) == plain


def test_a_half_read_shuffle_can_be_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(shuffle, "CHUNK", 10_000)
    monkeypatch.setattr(shuffle, "BUCKET", 1_000)
    shuffling = Shuffle(tmp_path / "a", 0, 0)
    for i in range(20_000):
        shuffling.add(b"%d\0" % i)
    next(shuffling.blocks())
    assert sum(len(lengths) for _, lengths in shuffling.blocks()) == 20_000


def write_lines(path, megabytes):
    block = b"".join(b"%d the quick brown fox jumps over the lazy dog\n" % i for i in range(20_000))
    with open(path, "wb") as file:
        for _ in range(megabytes * 1_000_000 // len(block)):
            file.write(block)


@pytest.mark.parametrize("unit", ["line", "document"])
def test_memory_stays_small(tmp_path, files_data, preparing, unit):
    write_lines(tmp_path / "large.txt", 25)
    process = preparing(files_data(files=[str(tmp_path / "large.txt")], unit=unit), tmp_path / "root")
    assert int(process.communicate()[0].split()[1]) < 250


@pytest.mark.slow
@pytest.mark.parametrize(("tokenizer", "megabytes"), [("bytes", 200), ("bpe", 50)])
def test_memory_stays_small_for_a_large_text(tmp_path, files_data, preparing, tokenizer, megabytes):
    write_lines(tmp_path / "large.txt", megabytes)
    data = files_data(files=[str(tmp_path / "large.txt")], unit="line", tokenizer=tokenizer)
    assert int(preparing(data, tmp_path / "root").communicate()[0].split()[1]) < 500
