"""Files that are not read are refused by name, in one line, with what to do."""

import gzip
import json
import pickle
import tarfile

import numpy as np
import pytest
from samples import DOCS, LINES, RECORDS, TABLE, arrow, tarred, zipped

from proxytrain.errors import RequestError

REFUSED = {
    "texts.tar.gz": (gzip.compress(tarred(tarfile.USTAR_FORMAT)), "a tar archive", "Unpack"),
    "texts.tar": (tarred(tarfile.GNU_FORMAT), "a tar archive", "Unpack"),
    "texts.zip": (zipped("a.txt"), "a zip archive", "Unpack"),
    "texts.txt": (zipped("b.txt"), "a zip archive", "Unpack"),
    "letter.docx": (zipped("[Content_Types].xml"), "an Office document", "plain text"),
    "weights.pt": (zipped("archive/data.pkl"), "a PyTorch file", "JSON lines"),
    "ids.npz": (zipped("ids.npy"), "a NumPy .npz file", "data=tokens"),
    "texts.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(100), "a 7z archive", "Unpack"),
    "texts.rar": (b"Rar!\x1a\x07\x01\x00" + bytes(100), "a rar archive", "Unpack"),
    "data.arrow": (arrow(), "an Arrow file", "save_to_disk"),
    "paper.pdf": (b"%PDF-1.7\n" + bytes(range(256)) * 9, "a PDF", "Extract"),
    "texts.db": (b"SQLite format 3\0" + bytes(100), "an SQLite database", "JSON lines"),
    "texts.pkl": (pickle.dumps(DOCS), "a pickle", "JSON lines"),
    "ids.bin": (np.random.default_rng(0).integers(0, 50_000, 9000).astype("<u2").tobytes(), "binary data", "Leave"),
    "model.safetensors": (b"\x10\0\0\0\0\0\0\0" + b'{"a":{}}' + bytes(100), "model weights", "Leave"),
    "utf16.txt": ("\n".join(DOCS).encode("utf-16-le"), "UTF-16 without a byte-order mark", "UTF-8"),
    "pointer.jsonl": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer", "lfs pull"),
    "columns.json": (TABLE.to_json().encode(), "JSON by columns", "orient='records'"),
    "wrapped.json": (json.dumps({"data": RECORDS}).encode(), "'data' holds the documents", "jq -c '.data[]'"),
    "body.json": (LINES.replace(b'"text"', b'"body"'), "data.text_key='text'", "id, body"),
    "cut.json": (json.dumps(RECORDS).encode()[:-90], "not JSON", "value 300"),
    "body.csv": (b"id,body\n1,a\n", "no column data.text_key='text'", "id, body"),
    "ragged.csv": (b"id,text\n1,one, two\n", "line 2", "3 cells where the header has 2"),
    "backslashes.csv": (b'id,text\n1,"a \\"b\\" c"\n', "line 2", "not CSV"),
    "open.tsv": (b'id\ttext\n1\t"never closed\n2\tb\n', "not CSV", "line 2"),
    "twice.csv": (b"text,text\na,b\n", "2 columns are named 'text'", "Rename"),
    "latin1.txt": ("déjà vu ".encode("latin-1") * 99, "no document is UTF-8 text", "Convert"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_not_read_is_refused_by_name(reading, name):
    content, what, advice = REFUSED[name]
    with pytest.raises(RequestError) as caught:
        reading({name: content})
    message = str(caught.value)
    assert name in message
    assert what in message
    assert advice in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["texts.zip", "data.arrow", "utf16.txt"])
def test_a_file_of_texts_is_refused_beside_others_too(reading, name):
    with pytest.raises(RequestError, match=name):
        reading({"a.jsonl": LINES, name: REFUSED[name][0]})


def test_a_folder_is_named_with_what_to_write(tmp_path, reading):
    (tmp_path / "folder").mkdir()
    with pytest.raises(RequestError, match=r"is a folder. Name its files: .*folder/\*\*/\*"):
        reading({}, files=[f"{tmp_path}/folder"])


def test_the_splits_of_a_saved_dataset_are_asked_for(tmp_path, reading):
    import datasets

    table = datasets.Dataset.from_pandas(TABLE)
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path / "sets"))
    with pytest.raises(RequestError, match=r"splits train, test. Name one: .*sets/train"):
        reading({}, files=[f"{tmp_path}/sets"])


def test_a_split_that_a_saved_dataset_lacks_is_refused(tmp_path, hub_data):
    import datasets

    from proxytrain.corpus import prepare

    datasets.DatasetDict({"test": datasets.Dataset.from_pandas(TABLE)}).save_to_disk(str(tmp_path / "sets"))
    with pytest.raises(RequestError, match=r"data.split=train: .*holds the splits test"):
        prepare(hub_data(tmp_path / "sets"), tmp_path / "root")
