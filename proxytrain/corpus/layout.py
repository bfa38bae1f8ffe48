"""Layouts of token files: which are read in place, and what those are that are not.

Read: nanoGPT's (nothing but tokens, also Megatron's .bin), llm.c's (256 int32 of header) and NumPy's .npy. Everything
else that a header gives away is refused by name.
"""

from __future__ import annotations

import ast
import os
import re
import struct
from dataclasses import dataclass

import numpy as np

from proxytrain.corpus.kinds import format_of
from proxytrain.errors import RequestError

LLM_C_BYTES = 1024
LLM_C = {(20240520, 1): "uint16", (20240801, 7): "uint32"}  # GPT-2's and Llama 3's tokenizer
LLM_C_OTHERS = {
    20240326: "model weights",
    20240327: "debug state",
    20240328: "a tokenizer",
    20240527: "optimizer state",
}
IN_PLACE = {"<u2": "uint16", "<u4": "uint32", "<i4": "uint32"}  # int32 that are no ids are beyond any vocabulary
MEGATRON = re.compile(rb"MMIDIDX\0\0.{8}(?P<code>.)", re.DOTALL)
MEGATRON_TYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "uint32", 5: "int64", 6: "float64", 7: "float32", 8: "uint16"}
PACKED = (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh9")
HEAD = 4096


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a file are.

    Attributes
    ----------
    offset : bytes before them
    tokens : how many; None: to the end of the file
    dtype : of them
    """

    offset: int
    tokens: int | None
    dtype: str


def layout_of(path: str, dtype: str) -> Layout:
    """Return the layout of a token file by its header; `dtype` is what a file without one holds.

    Raises
    ------
    RequestError : a header of another format, version, byte order or dtype
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"\x93NUMPY"):
        return _numpy(path, head)
    words = np.frombuffer(head[:12].ljust(12, b"\0"), dtype="<i4")
    magic, version, tokens = words.tolist()
    if (magic, version) in LLM_C:
        found = LLM_C[magic, version]
        if found != dtype:
            raise RequestError(f"{path}: its header says {found}, data.dtype={dtype}. Set data.dtype={found}.")
        return Layout(LLM_C_BYTES, tokens, found)
    _refuse_llm_c(path, magic, version, int(words.byteswap()[0]))
    _refuse_known(path, head)
    _check_index(path, dtype)
    return Layout(0, None, dtype)


def _numpy(path: str, head: bytes) -> Layout:
    """Read the header of .npy: magic, version, length, and a Python literal."""
    wide = head[6] > 1 if len(head) > 6 else False
    start = 12 if wide else 10
    try:
        (length,) = struct.unpack("<I" if wide else "<H", head[8:start])
        header = ast.literal_eval(head[start : start + length].decode("latin1").strip())
        descr, shape, fortran = header["descr"], header["shape"], header["fortran_order"]
        count = int(np.prod([int(n) for n in shape], dtype=object)) if shape else 1
        kind = np.dtype(descr)
    except (struct.error, ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        raise RequestError(f"{path}: its .npy header is damaged. Save the array again.") from None
    if fortran and len(shape) > 1:
        raise RequestError(f"{path}: an array in Fortran order. Save np.ascontiguousarray(tokens).")
    if descr not in IN_PLACE:
        name = f"big-endian {kind.name}" if str(descr).startswith(">") else kind.name
        raise RequestError(
            f"{path}: an array of {name}, where tokens are uint16 or uint32. Save tokens.astype(np.uint32), "
            "or np.uint16 if all ids are below 65,536."
        )
    return Layout(start + length, count, IN_PLACE[descr])


def _refuse_llm_c(path: str, magic: int, version: int, swapped: int) -> None:
    """Refuse llm.c's other files, versions and byte orders."""
    known = dict(LLM_C.keys())
    if magic in known:
        raise RequestError(
            f"{path}: version {version} of llm.c's token file; version {known[magic]} is read. Write the file again."
        )
    if magic in LLM_C_OTHERS:
        raise RequestError(f"{path}: {LLM_C_OTHERS[magic]} of llm.c, not tokens. Name its token files.")
    if swapped in known:
        raise RequestError(f"{path}: a big-endian token file of llm.c. Write it as little-endian.")


def _refuse_known(path: str, head: bytes) -> None:
    """Refuse files that are no tokens by their magic numbers, which raw tokens never form by chance."""
    if head.startswith((b"MMIDIDX\0\0", b"TNTIDX\0\0")):
        raise RequestError(f"{path}: a Megatron index, not tokens. Name its .bin file.")
    found = format_of(head)
    if found:
        raise RequestError(f"{path}: is {found.name}, not a token file. Save its token ids as .npy of uint32.")
    if head.startswith(PACKED):
        raise RequestError(f"{path}: is compressed, and token files are used in place. Unpack it first.")
    count = int.from_bytes(head[:4], "little")
    if path.endswith(".mds") or head[4 * (count + 2) : 4 * (count + 2) + 2] == b'{"':
        raise RequestError(f"{path}: a MosaicML shard, not a token file. Save its token ids as .npy.")


def _check_index(path: str, dtype: str) -> None:
    """Compare a Megatron index beside the file, which knows the dtype of its tokens."""
    try:
        with open(f"{os.path.splitext(path)[0]}.idx", "rb") as file:
            match = MEGATRON.match(file.read(32))
    except OSError:
        return
    if not match:
        return
    found = MEGATRON_TYPES.get(match["code"][0], "unknown")
    if found != dtype:
        what = f"Set data.dtype={found}." if found in ("uint16", "uint32") else "Save its token ids as .npy of uint32."
        raise RequestError(f"data.dtype={dtype}: the Megatron index of {path} says {found}. {what}")
