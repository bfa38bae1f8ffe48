"""Token files: which layouts are read in place, and which integers and formats are refused by name."""

import gzip
import io
import pickle
import struct

import numpy as np
import pytest

from proxytrain.corpus import Stream, prepare
from proxytrain.errors import RequestError

DRAWN = np.random.default_rng(0)
IDS = DRAWN.zipf(1.3, 60_000) % 50_000
WIDE = DRAWN.integers(0, 128_000, 60_000)
SMALL = DRAWN.integers(0, 65, 60_000)
PADDED = np.where(DRAWN.random(60_000) < 0.1, -100, IDS)
DNA = DRAWN.integers(0, 4, 60_000)
RAW = IDS.astype("<u2").tobytes()


@pytest.fixture
def ready(tmp_path, tokens_data):
    """Prepares token files by name and content; the corpus and the notices."""

    def read(files: dict[str, bytes], **keys):
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        notices: list[str] = []
        keys = {"vocab_size": 50_257, "bytes_per_token": None} | keys
        data = tokens_data([tmp_path / name for name in files], **keys)
        return prepare(data, tmp_path / "root", notice=notices.append), notices

    return read


def npy(tokens: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, tokens, version=version)
    return file.getvalue()


def header(*numbers: int, order: str = "<") -> bytes:
    return np.array([*numbers, *[0] * (256 - len(numbers))], dtype=f"{order}i4").tobytes()


def index(code: int) -> bytes:
    return b"MMIDIDX\0\0" + struct.pack("<QB", 1, code) + bytes(100)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_an_npy_file_gives_the_corpus_of_the_raw_file(ready, version):
    raw, _ = ready({"a.bin": RAW})
    corpus, notices = ready({"a.npy": npy(IDS.astype("<u2"), version)})
    assert (corpus.manifest.content_hash, notices) == (raw.manifest.content_hash, [])
    assert isinstance(corpus.train, np.memmap)
    assert (corpus.train == raw.train).all()


@pytest.mark.parametrize("dtype", ["<u4", "<i4"])
def test_an_npy_file_says_its_dtype_itself(ready, dtype):
    raw, _ = ready({"a.bin": IDS.astype("<u4").tobytes()}, dtype="uint32")
    corpus, notices = ready({"a.npy": npy(IDS.astype(dtype))})
    assert corpus.manifest.content_hash == raw.manifest.content_hash
    assert notices == ["data.dtype=uint16: the files say uint32, which is used"]


def test_files_of_two_dtypes_are_one_text(ready):
    corpus, _ = ready({"a.npy": npy(IDS[:30_000].astype("<u2")), "b.npy": npy(IDS[30_000:].astype("<u4"))})
    expected = IDS[:-50]
    assert (corpus.train[:] == expected).all()
    assert (Stream(corpus.train, 64, 0).read(0, 1280)[0] == Stream(expected, 64, 0).read(0, 1280)[0]).all()


def test_a_megatron_file_is_read_by_its_index(tmp_path, ready):
    (tmp_path / "a.idx").write_bytes(index(8))
    corpus, notices = ready({"a.bin": RAW})
    assert (corpus.train[:] == IDS[:-50]).all()
    assert not notices


WRONG = {  # bytes, data.dtype, and what the error says
    "uint32": (IDS.astype("<u4").tobytes(), "uint16", ["zeros in every second place", "Set data.dtype=uint32"]),
    "int64": (IDS.astype("<i8").tobytes(), "uint16", ["zeros in three of four places", "int64", "'<i8'"]),
    "int64 under uint32": (IDS.astype("<i8").tobytes(), "uint32", ["zeros in every second place", "int64", "'<i8'"]),
    "ids beyond 65,535": (WIDE.astype("<u4").tobytes(), "uint16", ["Set data.dtype=uint32"]),
    "padded int64": (PADDED.astype("<i8").tobytes(), "uint16", ["int64"]),
    "few ids in int64": (DNA.astype("<i8").tobytes(), "uint16", ["int64"]),
    "big-endian uint32": (IDS.astype(">u4").tobytes(), "uint16", ["big-endian uint32", "'>i4'"]),
    "big-endian int64": (IDS.astype(">i8").tobytes(), "uint16", ["big-endian int64", "'>i8'"]),
    "big-endian uint16": (IDS.astype(">u2").tobytes(), "uint16", ["beyond data.vocab_size", "big-endian"]),
    "big-endian characters": (SMALL.astype(">u2").tobytes(), "uint16", ["big-endian", "'>u2'"]),
    "uint16 under uint32": (RAW, "uint32", ["beyond data.vocab_size", "data.dtype=uint16"]),
    "negative int32": (PADDED.astype("<i4").tobytes(), "uint32", ["negative", "padding"]),
    "one byte": (SMALL.astype("u1").tobytes(), "uint16", ["tokens of one byte", "'u1'"]),
    "text": ("Grüße, a text. ".encode() * 512, "uint16", ["is text", "data=files"]),
    "unknown header": (header(20251111, 1, 60_000) + RAW, "uint16", ["a header that is not known"]),
    "llm.c's next version": (header(20240520, 2, 60_000) + RAW, "uint16", ["version 2", "version 1"]),
    "llm.c's weights": (header(20240326, 3) + RAW, "uint16", ["weights of llm.c"]),
    "llm.c big-endian": (header(20240520, 1, 9, order=">") + RAW, "uint16", ["big-endian token file of llm.c"]),
    "llm.c of uint32": (header(20240801, 7, 30_000) + RAW, "uint16", ["says uint32", "Set data.dtype=uint32"]),
    "npy of int64": (npy(IDS), "uint16", ["array of int64", "astype(np.uint32)"]),
    "npy big-endian": (npy(IDS.astype(">u2")), "uint16", ["big-endian uint16"]),
    "npy of floats": (npy(IDS.astype("f4")), "uint16", ["float32"]),
    "npy cut short": (npy(IDS.astype("<u2"))[:5000], "uint16", ["60,000 tokens"]),
    "npy damaged": (b"\x93NUMPY\x01\0{'descr'" + bytes(90), "uint16", [".npy header is damaged"]),
    "npy in columns": (npy(np.asfortranarray(IDS.astype("<u2").reshape(60, -1))), "uint16", ["Fortran"]),
    "megatron index": (index(8), "uint16", ["a Megatron index", ".bin"]),
    "mosaic shard": (struct.pack("<5I", 3, 0, 1, 2, 3) + b'{"column_names":[]}' + RAW, "uint16", ["a MosaicML shard"]),
    "pickle": (pickle.dumps(list(range(999))), "uint16", ["a pickle", ".npy"]),
    "gzip": (gzip.compress(RAW), "uint16", ["compressed", "Unpack"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_tokens_of_the_dtype_is_named(ready, name):
    content, dtype, words = WRONG[name]
    with pytest.raises(RequestError) as caught:
        ready({"a.bin": content}, dtype=dtype)
    message = str(caught.value)
    assert "\n" not in message
    for word in ["a.bin", *words]:
        assert word in message


def test_a_megatron_index_of_another_dtype_is_named(tmp_path, ready):
    (tmp_path / "a.idx").write_bytes(index(4))
    with pytest.raises(RequestError, match=r"index of .*a.bin says uint32. Set data.dtype=uint32"):
        ready({"a.bin": RAW})


CLEAN = {
    "few ids": DNA,
    "characters": SMALL,
    "zeros": np.zeros(4000),
    "rising": np.arange(4000),
    "runs of zeros": np.repeat(IDS[:2000] * (IDS[:2000] % 3 == 0), 7),
    "padded at the end": np.concatenate([IDS[:9000], np.zeros(50_000)]),
    "a first document of zeros": np.concatenate([[1], np.zeros(20), IDS[:9000]]),
}


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("name", CLEAN)
def test_clean_tokens_raise_no_alarm(ready, name, dtype):
    tokens = CLEAN[name].astype(dtype)
    corpus, notices = ready({"a.bin": tokens.tobytes()}, dtype=dtype, vocab_size=int(tokens.max()) + 2)
    assert (corpus.train[:] == tokens[: len(corpus.train)]).all()
    assert not notices


def test_a_highest_id_far_below_the_vocabulary_is_reported(ready):
    _, notices = ready({"a.bin": SMALL.astype("<u2").tobytes()})
    assert "the highest token id is 64 of a vocabulary of 50,257" in notices[0]


def test_a_vocabulary_that_uint16_cannot_hold_is_reported(ready):
    _, notices = ready({"a.bin": IDS.astype("<u2").tobytes()}, vocab_size=70_000)
    assert "uint16 has no ids from 65,536 on" in notices[0]


def test_validation_tokens_with_the_content_of_training_tokens_are_refused(tmp_path, ready):
    (tmp_path / "val.bin").write_bytes(RAW)
    with pytest.raises(RequestError, match=r"data.val=.*val.bin: has the tokens of .*a.bin, which is trained on"):
        ready({"a.bin": RAW}, val=[str(tmp_path / "val.bin")])


def test_a_token_file_that_two_paths_lead_to_is_read_once(tmp_path, ready):
    alone, _ = ready({"a.bin": RAW})
    (tmp_path / "b.bin").symlink_to(tmp_path / "a.bin")
    corpus, notices = ready({"a.bin": RAW, "b.bin": RAW})
    assert (corpus.manifest.content_hash, notices) == (alone.manifest.content_hash, [])


def test_copies_of_a_token_file_are_reported(ready):
    _, notices = ready({"a.bin": RAW, "b.bin": RAW})
    assert "b.bin has the tokens of" in notices[0]
