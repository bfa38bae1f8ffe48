"""The content of a file decides how it is read; what could be read in two ways is reported."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import re

import pytest
import zstandard
from samples import DOCS, END, LINES, RECORDS, TABLE, parquet

from proxytrain.corpus.ends import Documents, Ends
from proxytrain.corpus.pieces import LARGE, documents, pieces


def separated(marker: str, docs: list[str] = DOCS) -> bytes:
    return marker.join(docs).encode()


SAME = {  # name: content, and what a notice says of it, if anything
    "lines.json": (LINES, ""),
    "lines.json.gz": (gzip.compress(LINES), ""),
    "lines.jsonl.xz": (lzma.compress(LINES), ""),
    "lines.jsonl.bz2": (bz2.compress(LINES), ""),
    "lines.jsonl.gz.zst": (zstandard.compress(gzip.compress(LINES)), ""),
    "unpacked_by_the_browser.jsonl.gz": (LINES, ""),
    "no_suffix": (LINES, "JSON"),
    "lines.dat": (bz2.compress(LINES), "JSON"),
    "array.json": (json.dumps(RECORDS).encode(), ""),
    "pretty_array.json.gz": (gzip.compress(json.dumps(RECORDS, indent=2).encode()), ""),
    "array.jsonl": (json.dumps(RECORDS).encode(), ""),
    "array.txt": (json.dumps(RECORDS).encode(), "JSON"),
    "pretty_objects.json": ("\n".join(json.dumps(r, indent=1) for r in RECORDS).encode(), ""),
    "strings.json": (json.dumps(DOCS).encode(), "array of strings"),
    "mark.jsonl": (b"\xef\xbb\xbf" + LINES, ""),
    "utf16.jsonl": (LINES.decode().encode("utf-16"), "UTF-16"),
    "table.csv": (TABLE.to_csv(index=False).encode(), ""),
    "table.tsv.xz": (lzma.compress(TABLE.to_csv(index=False, sep="\t").encode()), ""),
    "semicolons.csv": (TABLE.to_csv(index=False, sep=";").encode(), ""),
    "windows.csv": (b"\xef\xbb\xbf" + TABLE.to_csv(index=False, lineterminator="\r\n").encode(), ""),
    "table.txt": (parquet(), "Parquet"),
    "separators.txt": (separated(f"\n{END}\n"), END),
    "separators_of_windows.txt": (separated(f"\r\n{END}\r\n"), END),
    "separators_inside_lines.txt": (separated(END), END),
    "after_each.txt": ("".join(f"{text}{END}\n" for text in DOCS).encode(), END),
    "in_fields.jsonl": ("".join(json.dumps({"text": t + END}) + "\n" for t in DOCS).encode(), END),
}


@pytest.mark.parametrize("name", SAME)
def test_a_file_gives_the_same_corpus_however_it_is_written(reading, clean, name):
    content, said = SAME[name]
    manifest, notices = reading({name: content})
    assert (manifest.content_hash, manifest.text_hash) == (clean.content_hash, clean.text_hash)
    assert len(notices) == bool(said)
    assert said in "".join(notices)


def test_a_plain_text_whose_first_line_is_json_stays_plain(reading):
    first = json.dumps({"text": "not the documents"}) + "\n"
    manifest, notices = reading({"log.txt": (first + "\n".join(DOCS * 20)).encode()})
    assert manifest.train_documents + manifest.val_documents > 10
    assert not notices


def test_lines_of_json_without_the_key_in_a_text_file_are_reported(reading):
    lines = "".join(json.dumps({"message": text}) + "\n" for text in DOCS * 20).encode()
    _, notices = reading({"log.txt": lines}, val_fraction=0.3)
    assert "without the key data.text_key='text' read as plain text" in notices[0]
    assert "message" in notices[0]


def test_a_json_object_among_source_files_stays_text(reading):
    sources = {f"{k}.py": f"x = {k}\n".encode() * 50 for k in range(40)}
    manifest, notices = reading(sources | {"package.json": b'{\n "name": "x",\n "version": "1"\n}\n'})
    assert manifest.train_documents + manifest.val_documents == 41
    assert not notices


def test_a_json_object_that_is_most_of_the_text_is_reported(reading):
    sources = {f"{k}.py": f"x = {k}\n".encode() for k in range(40)}
    _, notices = reading(sources | {"table.json": json.dumps({"a": {str(k): t for k, t in enumerate(DOCS)}}).encode()})
    assert "plain text though each is one JSON object" in notices[0]


def test_records_without_the_key_are_text_where_they_are_few_among_source_files(reading):
    sources = {f"{k}.py": f"x = {k}\n".encode() * 50 for k in range(40)}
    manifest, notices = reading(sources | {"fixtures.json": json.dumps([{"a": 1}, {"a": 2}]).encode()})
    assert manifest.train_documents + manifest.val_documents == 41
    assert "fixtures.json" in notices[0]


def test_binary_files_beside_texts_are_left_out_and_counted(reading, clean):
    image = b"\x89PNG\r\n\x1a\n" + bytes(500)
    manifest, notices = reading({"a.jsonl": LINES, "b.png": image, "c.png": image})
    assert manifest.content_hash == clean.content_hash
    assert notices == [n for n in notices if "2 files were left out as not text" in n and "b.png, a PNG image" in n]


@pytest.mark.parametrize("link", ["symlink", "hard link", "dot", "glob twice"])
def test_a_file_that_two_paths_lead_to_is_read_once(tmp_path, reading, clean, link):
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES)
    other = tmp_path / "b.jsonl"
    if link == "symlink":
        other.symlink_to(path)
    elif link == "hard link":
        os.link(path, other)
    names = {"dot": [str(path), f"{tmp_path}/./a.jsonl"], "glob twice": [f"{tmp_path}/a*.jsonl", f"{tmp_path}/?.jsonl"]}
    manifest, notices = reading({}, files=names.get(link, [str(path), str(other)]))
    assert (manifest.content_hash, notices) == (clean.content_hash, [])


@pytest.mark.parametrize("twin", ["b.jsonl", "a.jsonl.gz"])
def test_the_same_content_under_two_names_is_reported(reading, twin):
    _, notices = reading({"a.jsonl": LINES, twin: gzip.compress(LINES) if twin.endswith("gz") else LINES})
    assert "another has the same content; the text counts twice" in notices[0]
    assert twin in notices[0]


def test_files_that_only_begin_alike_are_not_reported(reading):
    other = LINES[:-40] + b"x" * 20 + LINES[-20:]
    begin = b"a " * 90_000
    _, notices = reading({"a.txt": begin + LINES * 2, "b.txt": begin + LINES + other}, val_fraction=0.3)
    assert not notices


def test_notices_are_repeated_for_a_corpus_that_is_there(tmp_path, files_data):
    from proxytrain.corpus import prepare

    (tmp_path / "a.txt").write_text(END.join(DOCS))
    data = files_data(files=[f"{tmp_path}/a.txt"])
    first: list[str] = []
    again: list[str] = []
    prepare(data, tmp_path / "root", notice=first.append)
    prepare(data, tmp_path / "root", notice=again.append)
    assert first == again != []


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of save_to_disk: `one` split and `several`."""
    import datasets

    folder, table = tmp_path_factory.mktemp("saved"), datasets.Dataset.from_pandas(TABLE)
    table.save_to_disk(str(folder / "one"))
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(folder / "several"))
    return folder


@pytest.mark.parametrize("pattern", ["one", "on*", "several/train"])
def test_a_folder_of_save_to_disk_is_read_as_files(reading, clean, saved, pattern):
    manifest, notices = reading({}, files=[f"{saved}/{pattern}"])
    assert (manifest.content_hash, notices) == (clean.content_hash, [])


@pytest.mark.parametrize("name", ["one", "several"])
def test_a_folder_of_save_to_disk_is_read_as_a_hub_dataset(tmp_path, hub_data, clean, saved, name):
    from proxytrain.corpus import prepare

    assert prepare(hub_data(saved / name, val_fraction=0.05), tmp_path / "r").manifest.text_hash == clean.text_hash


def test_an_array_is_streamed(tmp_path, files_data, preparing):
    text = "word " * 2000
    for name, count in (("small", 200), ("large", 12_000)):
        records = ",\n".join(json.dumps({"text": f"{k} {text}"}) for k in range(count))
        (tmp_path / f"{name}.json").write_text(f"[{records}]")
    peaks = []
    for name in ("small", "large"):
        output = preparing(files_data(files=[f"{tmp_path}/{name}.json"]), tmp_path / name).communicate()[0]
        peaks.append(int(output.split()[1]))
    assert peaks[1] < peaks[0] + 90  # MB; the large file has 120


def test_a_quoted_marker_stays_text(reading):
    text = "\n".join([f"{END}\n".join(DOCS), f'end = "{END}"', f"write `{END}` there"])
    _, notices = reading({"a.txt": text.encode()})
    assert notices == [
        f"{END} in the text separates documents, 299 times",
        "markers of documents in quotes or inside a line stay text, 2 times",
    ]


def test_units_of_lines_have_no_markers(tmp_path, files_data, read_back):
    from proxytrain.corpus import prepare

    (tmp_path / "a.txt").write_text(f"\n{END}\n".join(DOCS))
    corpus = prepare(files_data(files=[f"{tmp_path}/a.txt"], unit="line", val_tokens=10**6), tmp_path / "root")
    assert sorted((read_back(corpus.train) + read_back(corpus.val)).splitlines()) == sorted(DOCS)


@pytest.mark.parametrize("seed", range(40))
def test_markers_are_found_wherever_pieces_end(seed):
    rng = random.Random(seed)
    parts = ["x" * rng.choice([1, 90, LARGE - rng.randrange(40), LARGE + 1, 3 * LARGE]) + "'" * rng.randrange(2)]
    for _ in range(6):
        parts += [rng.choice(["", "\n", "\r\n"]) + END + rng.choice(["", "\n", "\r\n", "'"])]
        parts += ["word\n" * rng.choice([0, 1, 3000, 60_000, 200_000])]
    whole = "".join(parts).encode()
    ends = Ends()
    expected = re.split(rb"(?:\r?\n)?(?:(?<!')<\|endoftext\|>|<\|endoftext\|>(?!'))(?:\r?\n)?", whole)
    reader, found = Documents(io.BytesIO(whole), ends), []
    going = True
    while going:
        document = b""
        while part := reader.read(rng.choice([7, 500, LARGE])):
            document += part
        found.append(document)
        going = reader.advance()
    assert found == expected
    assert list(documents(io.BytesIO(whole), Ends())) == [p for d in expected for p in pieces(io.BytesIO(d))]


@pytest.mark.parametrize(
    ("marker", "text", "count"),
    [
        ("</s>", "one </s>\ntwo <s>old</s> three\n</s>\n<s> four </s><s> five", 3),
        ("<|im_end|>", "one<|im_end|>two <|im_end|> three", 2),
    ],
)
def test_the_tokenizers_own_marker_ends_documents(marker, text, count):
    assert len(list(documents(io.BytesIO(text.encode()), Ends([marker])))) == count + 1
