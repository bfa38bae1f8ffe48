"""Every source of text and of tokens gives the corpus it should."""

import gzip
import inspect
import json

import numpy as np
import pytest
import zstandard

from proxytrain.corpus import Stream, load, prepare, prose
from proxytrain.corpus.tokens import Shards


def documents(corpus, read_back):
    return sorted(read_back(corpus.train).split("\0")[:-1] + read_back(corpus.val).split("\0")[:-1])


def test_text_files(tmp_path, files_data, text, read_back):
    corpus = prepare(files_data(val_tokens=10**6), tmp_path / "root")
    assert documents(corpus, read_back) == sorted(text(i) for i in range(40))
    assert (corpus.manifest.train_documents, corpus.manifest.val_documents) == (
        read_back(corpus.train).count("\0"),
        read_back(corpus.val).count("\0"),
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_packed_files(tmp_path, files_data, text, read_back, suffix):
    texts = [text(i) for i in range(40)]
    path = tmp_path / f"rows{suffix}"
    lines = "".join(json.dumps({"id": i, "body": t}) + "\n" for i, t in enumerate(texts)).encode()
    if suffix == ".parquet":
        import pandas

        pandas.DataFrame({"id": range(41), "body": [*texts, None]}).to_parquet(path)
    elif suffix.endswith(".gz"):
        path.write_bytes(gzip.compress(lines))
    elif suffix.endswith(".zst"):
        half = len(lines) // 2  # two frames, as parallel compressors write them
        path.write_bytes(zstandard.compress(lines[:half]) + zstandard.compress(lines[half:]))
    else:
        path.write_bytes(lines)
    corpus = prepare(files_data(files=[str(path)], text_key="body", val_tokens=10**6), tmp_path / "root")
    assert documents(corpus, read_back) == sorted(texts)


def test_one_large_text_file_is_cut_at_line_ends(tmp_path, files_data, text, read_back):
    whole = "".join(text(i) for i in range(2000))
    (tmp_path / "large.txt").write_text(whole, encoding="utf-8")
    corpus = prepare(files_data(files=[str(tmp_path / "large.txt")], val_tokens=10**7), tmp_path / "root")
    parts = documents(corpus, read_back)
    assert len(parts) > 10
    assert sorted("".join(parts).splitlines()) == sorted(whole.splitlines())


def test_a_large_text_without_lines_is_cut_between_characters(tmp_path, files_data, read_back):
    (tmp_path / "large.txt").write_text("模型x" * 100_000, encoding="utf-8")
    corpus = prepare(files_data(files=[str(tmp_path / "large.txt")], val_tokens=10**7), tmp_path / "root")
    assert sum(map(len, documents(corpus, read_back))) == 300_000


def test_files_that_are_not_text_are_left_out_and_said(tmp_path, folder, files_data, text, read_back):
    (folder / "image.txt").write_bytes(b"\x89PNG\xff\xfe")
    notices = []
    corpus = prepare(files_data(val_tokens=10**6), tmp_path / "root", notice=notices.append)
    assert documents(corpus, read_back) == sorted(text(i) for i in range(40))
    assert "image.txt" in notices[0]


def test_max_bytes_limits_the_text(tmp_path, files_data):
    manifest = prepare(files_data(max_bytes=5000, val_tokens=10**6, val_fraction=0.3), tmp_path).manifest
    total = manifest.train_tokens + manifest.val_tokens - manifest.train_documents - manifest.val_documents
    assert 4000 < total <= 5000


def test_code_of_the_library_and_of_packages(tmp_path, code_data, read_back):
    import omegaconf.base

    corpus = prepare(code_data(packages=["omegaconf"], val_tokens=10**7), tmp_path / "root")
    assert corpus.manifest.versions["omegaconf"] == omegaconf.__version__
    assert corpus.manifest.train_tokens > 5_000_000
    lines = set((read_back(corpus.train) + read_back(corpus.val)).splitlines())
    for line in ("class OrderedDict(dict):", "class Node(ABC):"):
        assert line in lines


def test_code_that_differs_from_the_reference_is_said(tmp_path, code_data):
    notices = []
    corpus = prepare(code_data(reference_hash="0123456789abcdef"), tmp_path / "root", notice=notices.append)
    assert corpus.manifest.text_hash in notices[0]
    assert "0123456789abcdef" in notices[0]
    prepare(code_data(reference_hash=corpus.manifest.text_hash), tmp_path / "root", notice=notices.append)
    prepare(code_data(reference_hash="0123456789abcdef", max_bytes=10**6), tmp_path / "root", notice=notices.append)
    assert len(notices) == 1


SOURCE = '''"Module: {long}"
import re


class Law:
    """A sum of terms.

    With indented code:
        {long}
    """

    terms = """
    # not a comment: {long}
    """

    def fit(self):  # a remark at the end of a line is left out, even if it is {long}
        "Short."
        # Newton's steps are damped, since far from the optimum they leave:
        #   step = gain * (goal - here)
        # 1e-3 is {long}
        x = 1

        #
        # {long}
        return re.sub(r"\\#", "", x)
'''


def test_docstrings_and_blocks_of_comments_are_documents():
    long = " ".join(["words"] * 20)
    assert [text.decode() for text in prose.documents(SOURCE.format(long=long).encode())] == [
        f"Module: {long}",
        f"A sum of terms.\n\nWith indented code:\n    {long}",
        "Newton's steps are damped, since far from the optimum they leave:\n"
        f"  step = gain * (goal - here)\n1e-3 is {long}",
        long,
    ]
    assert prose.documents(b"print 'Python 2'") == prose.documents(b"'\xff'") == []


def test_prose_of_the_library_and_of_packages(tmp_path, prose_data, read_back):
    import collections

    found = documents(prepare(prose_data(val_tokens=10**7), tmp_path / "root"), read_back)
    assert len(set(found)) == len(found) > 5000
    assert inspect.getdoc(collections.Counter) in found
    assert min(len(text.encode()) for text in found) >= prose.LEAST_BYTES


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_hub_dataset_in_a_folder(tmp_path, hub_data, text, read_back, suffix):
    import pandas

    (tmp_path / "set").mkdir()
    table = pandas.DataFrame({"text": [text(i) for i in range(40)], "id": range(40)})
    if suffix == "jsonl":
        table.to_json(tmp_path / "set" / "train.jsonl", orient="records", lines=True)
    else:
        table.to_parquet(tmp_path / "set" / "train.parquet")
    corpus = prepare(hub_data(tmp_path / "set", val_tokens=10**6), tmp_path / "root")
    assert documents(corpus, read_back) == sorted(table["text"])
    assert "datasets" in corpus.manifest.versions


def test_a_hub_dataset_is_read_up_to_max_bytes(tmp_path, hub_data, text):
    (tmp_path / "set").mkdir()
    rows = [json.dumps({"text": text(i)}) + "\n" for i in range(400)]
    (tmp_path / "set" / "train.jsonl").write_text("".join(rows))
    manifest = prepare(hub_data(tmp_path / "set", max_bytes=10_000, val_tokens=10**6), tmp_path / "root").manifest
    assert 9_000 < manifest.train_tokens + manifest.val_tokens < 10_100


def write_llm_c(path, tokens, magic=20240520, version=1):
    header = np.zeros(256, dtype=np.int32)
    header[:3] = magic, version, len(tokens)
    path.write_bytes(header.tobytes() + tokens.tobytes())


def test_ready_tokens_are_used_in_place(tmp_path, tokens_data):
    tokens = np.random.default_rng(0).integers(0, 1000, 2000, dtype=np.uint16)
    tokens.tofile(tmp_path / "nano.bin")
    write_llm_c(tmp_path / "llmc.bin", tokens)
    for name in ("nano.bin", "llmc.bin"):
        corpus = prepare(tokens_data([tmp_path / name]), tmp_path / name[:4])
        assert isinstance(corpus.train, np.memmap)
        assert (corpus.train == tokens[:1950]).all()  # a tenth would be 200, of which val_tokens allows 50
        assert (corpus.val == tokens[1950:]).all()
        assert (corpus.unigram == np.bincount(tokens[:1950], minlength=1000)).all()
        assert not (corpus.folder / "train.bin").exists()
        assert not corpus.train.flags.writeable


def test_llm_c_files_of_uint32(tmp_path, tokens_data):
    tokens = np.random.default_rng(0).integers(0, 128_000, 2000, dtype=np.uint32)
    write_llm_c(tmp_path / "llama.bin", tokens, magic=20240801, version=7)
    corpus = prepare(tokens_data([tmp_path / "llama.bin"], dtype="uint32", vocab_size=128_256), tmp_path / "root")
    assert corpus.train.dtype == np.uint32
    assert (corpus.train == tokens[:1950]).all()


def test_several_ready_files_are_one_text(tmp_path, tokens_data):
    tokens = np.random.default_rng(0).integers(0, 1000, 2030, dtype=np.uint16)
    for i, part in enumerate(np.split(tokens, [700, 1400, 2000])):
        part.tofile(tmp_path / f"part{i}.bin")
    corpus = prepare(tokens_data([tmp_path / "part*.bin"]), tmp_path / "root")
    assert isinstance(corpus.train, Shards)
    assert (corpus.train[:] == tokens[:1980]).all()
    assert (corpus.val == tokens[1980:]).all()
    expected = Stream(tokens[:1980], 64, 0).read(0, 1280)
    assert (Stream(corpus.train, 64, 0).read(0, 1280)[0] == expected[0]).all()


def test_ready_validation_files(tmp_path, tokens_data):
    tokens = np.arange(900, dtype=np.uint16)
    tokens.tofile(tmp_path / "train.bin")
    tokens[::-1].tofile(tmp_path / "val.bin")
    corpus = prepare(tokens_data([tmp_path / "train.bin"], val=[str(tmp_path / "val.bin")]), tmp_path / "root")
    assert len(corpus.train) == 900
    assert (corpus.val == tokens[::-1][:50]).all()
    assert corpus.manifest.bytes_per_token == 2.5


def test_ready_tokens_that_changed_are_refused(tmp_path, tokens_data):
    np.zeros(900, dtype=np.uint16).tofile(tmp_path / "train.bin")
    prepared = prepare(tokens_data([tmp_path / "train.bin"]), tmp_path / "root").manifest.content_hash
    np.ones(900, dtype=np.uint16).tofile(tmp_path / "train.bin")
    with pytest.raises(ValueError, match="has changed"):
        _ = load(tmp_path / "root", prepared).train
    assert prepare(tokens_data([tmp_path / "train.bin"]), tmp_path / "root").manifest.content_hash != prepared
