"""Files that hold no plain text, recognised by their first bytes, each with what to do about it.

Magic numbers are those of the formats' own specifications. Compressed streams are unpacked in `unpack`, not here.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass

TO_JSONL = "Write its text as JSON lines or Parquet"
UNPACK = "Unpack it, and name the files inside"
NOT_TEXT = "Leave it out"


@dataclass(frozen=True)
class Binary:
    """A file format that is not text."""

    name: str
    advice: str
    holds_texts: bool = False  # an archive or table whose text the user wants: refused even beside other files


ARROW = Binary("an Arrow file", "Name its save_to_disk folder, or write it as Parquet", True)
TAR = Binary("a tar archive", UNPACK, True)
BINARY = Binary("binary data", NOT_TEXT)
UTF16 = Binary("UTF-16 without a byte-order mark", "Convert it to UTF-8", True)
POINTER = Binary("a Git LFS pointer, not the file itself", "Run `git lfs pull`", True)

PARQUET = b"PAR1\x15"
MAGIC = (
    (b"7z\xbc\xaf\x27\x1c", Binary("a 7z archive", UNPACK, True)),
    (b"Rar!\x1a\x07", Binary("a rar archive", UNPACK, True)),
    (b"ARROW1\0\0", ARROW),
    (b"FEA1\0", Binary("a Feather file", "Write it as Parquet", True)),
    (PARQUET, Binary("a Parquet file inside another file", UNPACK, True)),
    (b"%PDF-", Binary("a PDF", "Extract its text first")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Binary("an Office document", "Save it as plain text")),
    (b"SQLite format 3\0", Binary("an SQLite database", TO_JSONL)),
    (b"\x89HDF\r\n\x1a\n", Binary("an HDF5 file", TO_JSONL)),
    (b"Obj\x01", Binary("an Avro file", TO_JSONL)),
    (b"\x93NUMPY", Binary("a NumPy array", "Read token ids with data=tokens")),
    (b"MMIDIDX\0\0", Binary("a Megatron index", "Read its .bin file with data=tokens")),
    (b"\x04\x22\x4d\x18", Binary("an lz4 file", "Unpack it first", True)),
    (b"\xff\x06\0\0sNaPpY", Binary("a snappy file", "Unpack it first", True)),
    (b"\x1f\x9d", Binary("a .Z file", "Unpack it first", True)),
    (b"\x89PNG", Binary("a PNG image", NOT_TEXT)),
    (b"\xff\xd8\xff", Binary("a JPEG image", NOT_TEXT)),
    (b"GIF87a", Binary("a GIF image", NOT_TEXT)),
    (b"GIF89a", Binary("a GIF image", NOT_TEXT)),
    (b"\x7fELF", Binary("a program", NOT_TEXT)),
    (b"{\\rtf", Binary("an RTF document", "Save it as plain text")),
    (b"%!PS-", Binary("a PostScript file", "Extract its text first")),
    (b"version https://git-lfs.github.com/spec/", POINTER),
)
ZIP = b"PK\x03\x04"
IN_ZIP = (  # by the name of the first entry
    (rb"[^/]*\.npy$", Binary("a NumPy .npz file", "Read token ids with data=tokens, as .npy")),
    (rb"[^/]+/(data\.pkl|\.format_version|\.data/.*|byteorder|version)$", Binary("a PyTorch file", TO_JSONL)),
    (
        rb"\[Content_Types\]\.xml$|_rels/|docProps/|word/|xl/|ppt/",
        Binary("an Office document", "Save it as plain text"),
    ),
    (rb"mimetype$", Binary("an e-book or OpenDocument file", "Save it as plain text")),
)
ZIPPED = Binary("a zip archive", UNPACK, True)
PICKLE = re.compile(rb"\x80[\x02-\x05](\x95.{4}\0{4}|[\]}(]q|X.\0{3}|c[a-z_]|\x8a\nl\xfc)", re.DOTALL)
GGUF = re.compile(rb"GGUF[\x01-\x09]\0\0\0")
SAFETENSORS = re.compile(rb'.{5}\0\0\0\{"', re.DOTALL)
NOT_PRINTED = bytes({*range(9), *range(14, 27), *range(28, 32), 127})


def format_of(head: bytes) -> Binary | None:
    """Return the binary format that a file begins as, by its magic number; None for none of them."""
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(ZIP) and len(head) > 30:
        entry = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return next((kind for pattern, kind in IN_ZIP if re.match(pattern, entry)), ZIPPED)
    if head.startswith(b"PK\x05\x06"):
        return ZIPPED
    if _is_arrow_stream(head):
        return ARROW
    if _is_tar(head):
        return TAR
    if PICKLE.match(head):
        return Binary("a pickle", TO_JSONL)
    if GGUF.match(head) or SAFETENSORS.match(head):
        return Binary("model weights", NOT_TEXT)
    return None


def binary_of(head: bytes) -> Binary | None:
    """Return the format of a file that is not text: by its magic number, else by bytes that no text has."""
    found = format_of(head)
    if found or not head:
        return found
    if len(head) >= 64 and max(head[::2].count(0), head[1::2].count(0)) > 0.35 * len(head):
        return UTF16 if _is_utf16(head) else BINARY
    strange = len(head) - len(head.translate(None, NOT_PRINTED))
    if strange > 0.3 * len(head) or (strange > 0.03 * len(head) and not is_utf8(head)):
        return BINARY
    return None


def is_utf8(head: bytes) -> bool:
    """Return whether bytes are UTF-8 text, but for a character that their end cuts."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 and error.reason == "unexpected end of data"
    return True


def _is_utf16(head: bytes) -> bool:
    """Return whether every second byte is zero and the others are printed characters."""
    for zeros, others in ((head[1::2], head[::2]), (head[::2], head[1::2])):
        if zeros.count(0) > 0.7 * len(zeros):
            return len(others.translate(None, NOT_PRINTED)) > 0.95 * len(others)
    return False


def _is_arrow_stream(head: bytes) -> bool:
    """Return whether a file begins with an Arrow IPC message: a continuation mark and the length of a schema."""
    return head[:4] == b"\xff\xff\xff\xff" and 0 < int.from_bytes(head[4:8], "little") < 1 << 24 and len(head) > 16


def _is_tar(head: bytes) -> bool:
    """Return whether the first block has the checksum of a tar header; older tars have no magic number."""
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
