"""Preparing is deterministic, done once, and leaves a whole cache whatever happens to it."""

import json
import signal
import time

import numpy as np
import pytest

from proxytrain.corpus import load, prepare


def lines_of(read_back, tokens):
    return read_back(tokens).splitlines(keepends=True)


def test_no_validation_document_is_in_the_training_text(tmp_path, files_data, read_back):
    corpus = prepare(files_data(val_tokens=10**6), tmp_path / "root")
    train, val = (set(read_back(split).split("\0")[:-1]) for split in (corpus.train, corpus.val))
    assert val
    assert not train & val


def test_copies_of_a_document_are_on_one_side(tmp_path, folder, files_data, read_back, text):
    for i in range(40):
        (folder / f"copy{i}.txt").write_text(text(i), encoding="utf-8")
    corpus = prepare(files_data(val_tokens=10**6), tmp_path / "root")
    train, val = (read_back(split).split("\0")[:-1] for split in (corpus.train, corpus.val))
    assert len(train) + len(val) == 80
    assert not set(train) & set(val)


def test_lines_are_shuffled_within_their_split(tmp_path, files_data, read_back):
    by_document = prepare(files_data(val_tokens=10**6), tmp_path / "root")
    by_line = prepare(files_data(unit="line", val_tokens=10**6), tmp_path / "root")
    for name in ("train", "val"):
        documents = read_back(getattr(by_document, name)).replace("\0", "").splitlines(keepends=True)
        lines = lines_of(read_back, getattr(by_line, name))
        assert lines != documents
        assert sorted(lines) == sorted(documents)


def test_validation_is_cut_at_val_tokens(tmp_path, files_data, read_back):
    whole = prepare(files_data(val_tokens=10**6), tmp_path / "root")
    cut = prepare(files_data(val_tokens=333), tmp_path / "root")
    assert (cut.val == whole.val[:333]).all()
    ends = int((cut.val == 0).sum())
    assert cut.manifest.bytes_per_token == pytest.approx((333 - ends) / 333)


def test_nul_in_a_text_is_removed(tmp_path, folder, files_data, read_back):
    (folder / "nul.txt").write_bytes(b"in the\0re\n" * 3)
    corpus = prepare(files_data(unit="line", val_tokens=10**6), tmp_path / "root")
    lines = lines_of(read_back, corpus.train) + lines_of(read_back, corpus.val)
    assert lines.count("in there\n") == 3


def test_unigram_counts_the_training_tokens(tmp_path, files_data):
    corpus = prepare(files_data(tokenizer="bpe"), tmp_path / "root")
    assert (corpus.unigram == np.bincount(corpus.train, minlength=300)).all()
    assert corpus.unigram.dtype == np.int64


def test_bpe_reads_back_as_the_text(tmp_path, files_data, text):
    from tokenizers import Tokenizer

    corpus = prepare(files_data(tokenizer="bpe", val_tokens=10**6), tmp_path / "root")
    assert corpus.manifest.vocab_size == 300
    tokenizer = Tokenizer.from_file(str(corpus.folder / "tokenizer.json"))
    parts = [tokenizer.decode(split, skip_special_tokens=False) for split in (corpus.train, corpus.val)]
    assert sorted("".join(parts).split("<|endoftext|>")[:-1]) == sorted(text(i) for i in range(40))
    text_bytes = len(parts[1].replace("<|endoftext|>", "").encode())
    assert corpus.manifest.bytes_per_token == pytest.approx(text_bytes / len(corpus.val))


def test_a_special_token_in_a_text_is_text(tmp_path, folder, files_data):
    (folder / "special.txt").write_text("ends in <|endoftext|>")
    corpus = prepare(files_data(tokenizer="bpe", val_tokens=10**6), tmp_path / "root")
    assert int((corpus.train == 0).sum() + (corpus.val == 0).sum()) == 41


def test_a_ready_tokenizer_gives_the_same_tokens(tmp_path, files_data):
    trained = prepare(files_data(tokenizer="bpe"), tmp_path / "root")
    ready = prepare(files_data(tokenizer=str(trained.folder / "tokenizer.json")), tmp_path / "root")
    assert (ready.train == trained.train).all()
    assert ready.manifest.content_hash == trained.manifest.content_hash


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_the_content_hash_is_the_same_in_another_process(tmp_path, files_data, preparing, tokenizer):
    data = files_data(tokenizer=tokenizer, unit="line")
    one = preparing(data, tmp_path / "a", RAYON_NUM_THREADS="1", PYTHONHASHSEED="1")
    two = preparing(data, tmp_path / "b", RAYON_NUM_THREADS="4", PYTHONHASHSEED="2")
    hashes = [process.communicate()[0].split()[0] for process in (one, two)]
    assert hashes[0] == hashes[1]
    splits = [load(tmp_path / root, hashes[0]).train for root in "ab"]
    assert (splits[0] == splits[1]).all()


def test_other_text_or_order_has_another_hash(tmp_path, folder, files_data):
    hashes = [prepare(files_data(shuffle_seed=seed), tmp_path / "root").manifest.content_hash for seed in (0, 1)]
    (folder / "more.txt").write_text("one more")
    hashes.append(prepare(files_data(), tmp_path / "root").manifest.content_hash)
    assert len(set(hashes)) == 3


def test_a_corpus_is_prepared_once(tmp_path, code_data):
    data = code_data(max_bytes=2_000_000)
    first = prepare(data, tmp_path / "root")
    calls = []
    again = prepare(data, tmp_path / "root", progress=lambda *call: calls.append(call))
    assert not calls
    assert again.manifest == first.manifest


def test_changed_text_is_prepared_again(tmp_path, folder, files_data):
    first = prepare(files_data(), tmp_path / "root").manifest
    (folder / "deep" / "07.txt").write_text("changed\n")
    assert prepare(files_data(), tmp_path / "root").manifest.content_hash != first.content_hash


def test_progress_reaches_its_total(tmp_path, files_data):
    calls = []
    prepare(files_data(), tmp_path / "root", progress=lambda *call: calls.append(call))
    for what in ("reading text", "writing tokens"):
        done, total, _ = [call for call in calls if call[2] == what][-1]
        assert done == total > 0


def test_the_manifest_tells_what_was_asked(tmp_path, files_data):
    data = files_data()
    corpus = prepare(data, tmp_path / "root")
    manifest = json.loads((corpus.folder / "manifest.json").read_text())
    assert manifest["source"]["files"] == data.files
    assert manifest["train_tokens"] == len(corpus.train)
    assert manifest["versions"]["numpy"] == np.__version__


def whole(root):
    """Every corpus under the root can be read to its end; nothing else is left there."""
    assert {path.name for path in root.iterdir() if len(path.name) != 16} <= {"tmp", "requests"}
    for path in root.iterdir():
        if len(path.name) == 16:
            corpus = load(root, path.name)
            assert len(corpus.train) == corpus.manifest.train_tokens
            assert len(corpus.val) == corpus.manifest.val_tokens
            assert corpus.unigram.sum() == corpus.manifest.train_tokens
    return True


def test_killed_at_any_moment_it_leaves_a_whole_cache(tmp_path, files_data, preparing, text):
    (tmp_path / "large.txt").write_text(text(0, lines=150_000), encoding="utf-8")
    data, root = files_data(files=[str(tmp_path / "large.txt")], unit="line"), tmp_path / "root"
    interrupted = 0
    for delay in (0, 0.1, 0.2, 0.3):
        process = preparing(data, root)
        while not list(root.glob("tmp/*")) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        interrupted += process.returncode == -signal.SIGKILL
        assert whole(root)
    assert interrupted
    manifest = prepare(data, root).manifest
    assert whole(root)
    assert not list(root.glob("tmp/*"))
    assert manifest == prepare(data, tmp_path / "clean").manifest


def test_what_dead_processes_left_is_removed(tmp_path, files_data, preparing, text):
    (tmp_path / "large.txt").write_text(text(0, lines=150_000), encoding="utf-8")
    root = tmp_path / "root"
    process = preparing(files_data(files=[str(tmp_path / "large.txt")]), root)
    while not list(root.glob("tmp/*")):
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert list(root.glob("tmp/*"))
    prepare(files_data(), root)  # of another corpus
    assert not list(root.glob("tmp/*"))


def test_what_a_living_process_builds_is_left_alone(tmp_path, files_data, preparing, text):
    (tmp_path / "large.txt").write_text(text(0, lines=150_000), encoding="utf-8")
    root = tmp_path / "root"
    process = preparing(files_data(files=[str(tmp_path / "large.txt")]), root)
    while not list(root.glob("tmp/*")):
        time.sleep(0.005)
    prepare(files_data(), root)
    assert process.communicate()[0]
    assert process.returncode == 0
    assert whole(root)


def test_two_at_once_prepare_one_corpus(tmp_path, files_data, preparing, text):
    (tmp_path / "large.txt").write_text(text(0, lines=100_000), encoding="utf-8")
    data, root = files_data(files=[str(tmp_path / "large.txt")], unit="line"), tmp_path / "root"
    outputs = [process.communicate() for process in [preparing(data, root), preparing(data, root)]]
    assert outputs[0][0].split()[0] == outputs[1][0].split()[0]
    assert whole(root)
    assert not list(root.glob("tmp/*"))
    assert len([path for path in root.iterdir() if len(path.name) == 16]) == 1
