"""What cannot be done is said in one line that names the key or file, and nothing is left half done."""

import hashlib
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from proxytrain.corpus import load, prepare
from proxytrain.errors import RequestError


def refused(data, root, *words):
    with pytest.raises(RequestError) as caught:
        prepare(data, root)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message
    assert not list(root.glob("tmp/*"))
    assert not [path for path in root.glob("*") if path.name not in ("tmp", "requests")]


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"unit": "page"}, ["data.unit=page", "document or line"]),
        ({"val_fraction": 0.0}, ["data.val_fraction=0.0", "0.5"]),
        ({"val_fraction": 0.6}, ["data.val_fraction=0.6", "0.5"]),
        ({"val_tokens": 0}, ["data.val_tokens=0"]),
        ({"max_bytes": 0}, ["data.max_bytes=0"]),
        ({"tokenizer": "bpe", "vocab_size": 256}, ["data.vocab_size=256", "257"]),
        ({"tokenizer": "wordpiece"}, ["data.tokenizer=wordpiece", "bytes, bpe"]),
        ({"files": []}, ["data.files is empty"]),
        ({"files": ["/nowhere/**/*.md"]}, ["no file matches", "/nowhere/**/*.md"]),
    ],
)
def test_wrong_keys(root, files_data, keys, words):
    refused(files_data(**keys), root, *words)


def test_an_empty_file(root, folder, files_data):
    refused(files_data(files=[f"{folder}/deep/empty.txt"]), root, "empty.txt is empty")


def test_only_empty_files(root, tmp_path, files_data):
    (tmp_path / "none1.md").touch()
    refused(files_data(files=[f"{tmp_path}/*.md"]), root, "no text found")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(root, folder, files_data):
    (folder / "deep" / "03.txt").chmod(0)
    refused(files_data(), root, "03.txt", "cannot be read")


def test_broken_jsonl(root, tmp_path, files_data):
    (tmp_path / "rows.jsonl").write_text('{"text": "fine"}\n\n{"text": "bro\n')
    refused(files_data(files=[f"{tmp_path}/rows.jsonl"]), root, "rows.jsonl, line 3", "not JSON")


def test_a_missing_text_key(root, tmp_path, files_data):
    (tmp_path / "rows.jsonl").write_text('{"text": "fine"}\n{"body": "x", "id": 1}\n')
    refused(files_data(files=[f"{tmp_path}/rows.jsonl"]), root, "line 2", "data.text_key='text'", "body, id")


def test_text_that_is_a_number(root, tmp_path, files_data):
    (tmp_path / "rows.jsonl").write_text('{"text": 5}\n')
    refused(files_data(files=[f"{tmp_path}/rows.jsonl"]), root, "line 1", "int")


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_a_broken_packed_file(root, tmp_path, files_data, suffix):
    (tmp_path / f"rows{suffix}").write_bytes(b"this is not packed")
    refused(files_data(files=[f"{tmp_path}/rows{suffix}"]), root, f"rows{suffix}", "read")


def test_a_gz_that_was_cut_short(root, tmp_path, files_data):
    import gzip

    packed = gzip.compress(json.dumps({"text": "x" * 1000}).encode())
    (tmp_path / "rows.jsonl.gz").write_bytes(packed[:-12])
    refused(files_data(files=[f"{tmp_path}/rows.jsonl.gz"]), root, "rows.jsonl.gz", "cannot be read")


def test_parquet_without_the_column(root, tmp_path, files_data):
    import pandas

    pandas.DataFrame({"body": ["x"]}).to_parquet(tmp_path / "rows.parquet")
    refused(files_data(files=[f"{tmp_path}/rows.parquet"]), root, "rows.parquet", "data.text_key='text'", "body")


def test_no_validation_text(root, folder, files_data):
    refused(
        files_data(files=[f"{folder}/deep/01.txt"], val_fraction=0.001), root, "val_fraction", "validation", "raise"
    )


def test_no_training_text(root, tmp_path, files_data):
    (tmp_path / "a.md").write_text(next(text for i in range(100) if is_held_out(text := f"text {i}")))
    refused(files_data(files=[f"{tmp_path}/a.md"], val_fraction=0.5), root, "val_fraction=0.5", "training", "lower")


def test_a_corpus_smaller_than_its_validation_set(root, tmp_path, files_data):
    for i in range(10):
        (tmp_path / f"{i}.md").write_text(f"text {i}")
    data = files_data(files=[f"{tmp_path}/*.md"], val_fraction=0.5, val_tokens=10**6)
    (tmp_path / "long.md").write_text(next(text for i in range(100) if is_held_out(text := f"long text {i} " * 50)))
    refused(data, root, "smaller than its validation set", "data.val_tokens")


def is_held_out(text):
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") < 2**63


def test_a_package_that_is_not_installed(root, code_data):
    refused(code_data(packages=["omegaconf", "nothing-of-the-kind"]), root, "data.packages", "nothing-of-the-kind")


def test_a_tokenizer_that_is_no_tokenizer(root, tmp_path, files_data):
    (tmp_path / "tokenizer.json").write_text("{}")
    refused(files_data(tokenizer=f"{tmp_path}/tokenizer.json"), root, "tokenizer.json", "not a tokenizer.json")


def test_a_tokenizer_without_an_end_of_text(root, tmp_path, files_data):
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[])).save(f"{tmp_path}/tokenizer.json")
    refused(files_data(tokenizer=f"{tmp_path}/tokenizer.json"), root, "end-of-text", "data.unit=line")


def test_a_hub_that_cannot_be_reached(root, hub_data):
    script = (
        "import time; from proxytrain.config.schema import *; from proxytrain.corpus import prepare\n"
        f"started = time.perf_counter()\ntry: prepare({hub_data('someone/something')!r}, {str(root)!r})\n"
        "except ValueError as error: print(time.perf_counter() - started, error)"
    )
    silent = socket.create_server(("127.0.0.1", 0))
    for endpoint in ("http://127.0.0.1:9", f"http://127.0.0.1:{silent.getsockname()[1]}"):  # refuses; never answers
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment |= {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"}
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        seconds, message = run.stdout.strip().split(" ", 1)
        assert float(seconds) < 60  # it does not wait for ever
        for word in ("someone/something", endpoint, "data=files"):
            assert word in message
        assert "\n" not in message


def test_a_hub_dataset_without_max_bytes(root, tmp_path, hub_data):
    refused(hub_data(tmp_path, max_bytes=None), root, "data.max_bytes=None", "data=hub")


def test_a_hub_folder_without_the_column_or_split(root, tmp_path, hub_data):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"text": "x"}\n')
    refused(hub_data(tmp_path / "set", column="body"), root, "data.column='body'", "text")
    refused(hub_data(tmp_path / "set", split="dev"), root, "data.split=dev")


def test_a_token_beyond_the_vocabulary(root, tmp_path, tokens_data):
    for name in ("a", "b"):
        tokens = np.arange(900, dtype=np.uint16)
        tokens[700] = 1000 if name == "b" else 0
        tokens.tofile(tmp_path / f"{name}.bin")
    refused(tokens_data([tmp_path / "a.bin", tmp_path / "b.bin"]), root, "b.bin", "token 1000", "position 700")


def test_a_token_beyond_the_vocabulary_in_the_held_out_end(root, tmp_path, tokens_data):
    tokens = np.zeros(900, dtype=np.uint16)
    tokens[890] = 1234
    tokens.tofile(tmp_path / "a.bin")
    refused(tokens_data([tmp_path / "a.bin"]), root, "token 1234", "position 890")


def test_token_files_that_are_not_there_or_not_whole(root, tmp_path, tokens_data):
    refused(tokens_data([tmp_path / "none.bin"]), root, "data.train", "none.bin")
    (tmp_path / "odd.bin").write_bytes(b"\0" * 101)
    refused(tokens_data([tmp_path / "odd.bin"]), root, "odd.bin", "uint16")
    (tmp_path / "empty.bin").touch()
    refused(tokens_data([tmp_path / "empty.bin"]), root, "empty.bin", "no tokens")
    refused(tokens_data([]), root, "data.train")
    refused(tokens_data(["x"], dtype="int64"), root, "data.dtype=int64", "uint16 or uint32")


def test_a_file_that_is_trained_on_and_validates(root, tmp_path, tokens_data):
    np.zeros(900, dtype=np.uint16).tofile(tmp_path / "a.bin")
    (tmp_path / "same.bin").symlink_to(tmp_path / "a.bin")
    refused(tokens_data([tmp_path / "a.bin"], val=[str(tmp_path / "same.bin")]), root, "data.val=", "same.bin")


def test_an_llm_c_file_that_was_cut_short(root, tmp_path, tokens_data):
    header = np.zeros(256, dtype=np.int32)
    header[:3] = 20240520, 1, 5000
    (tmp_path / "cut.bin").write_bytes(header.tobytes() + bytes(2000))
    refused(tokens_data([tmp_path / "cut.bin"]), root, "cut.bin", "5,000")


def test_a_full_disk(root, files_data):
    script = (
        "import resource, signal; from proxytrain.config.schema import *; from proxytrain.corpus import prepare\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"try: prepare({files_data()!r}, {str(root)!r})\nexcept ValueError as error: print(error)"
    )
    message = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    assert "no space for the corpus" in message
    assert not list(root.glob("tmp/*"))


def test_a_corpus_that_was_not_prepared(root):
    with pytest.raises(RequestError, match="0123456789abcdef"):
        load(root, "0123456789abcdef")


def test_a_corpus_that_was_damaged(root, files_data):
    corpus = prepare(files_data(), root)
    with open(corpus.folder / "train.bin", "ab") as file:
        file.write(b"x")
    with pytest.raises(RequestError, match="delete the folder"):
        _ = prepare(files_data(), root).train


def test_the_corpus_costs_little_to_import():
    heavy = {"torch", "datasets", "pyarrow", "tokenizers", "pandas", "huggingface_hub"}
    script = f"import sys, proxytrain.corpus; print({heavy} & set(sys.modules) or 'none')"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "none"
