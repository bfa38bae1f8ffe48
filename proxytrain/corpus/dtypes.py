"""Token files whose integers are not those of `data.dtype`: recognised by patterns that no tokens have.

Integers that are wider than they are read show zeros in fixed places; narrower ones pair up to ids that no vocabulary
has. Bytes that are all below 128 are text, or tokens of one byte.
"""

from __future__ import annotations

import numpy as np

from proxytrain.arrays import Array
from proxytrain.corpus.kinds import is_utf8
from proxytrain.errors import RequestError

WINDOW = 1 << 18  # tokens that are looked at in one place
ROWS = 32  # wider integers that must be seen before they are named
HIGH = 4  # the upper half of a wider id is below this: ids below 262,144


def check_dtype(path: str, tokens: Array) -> None:
    """Refuse tokens, (N,) uint16 or uint32, that are another kind of integer.

    Raises
    ------
    RequestError : names the dtype that the file has
    """
    middle = (len(tokens) // 2) // 4 * 4
    some = np.concatenate([np.asarray(tokens[:WINDOW]), np.asarray(tokens[max(middle, WINDOW) :][:WINDOW])])
    dtype = tokens.dtype.name
    if _has_header(some):
        raise RequestError(f"{path}: begins with a header that is not known. Save its token ids as .npy.")
    if _is_text(some):
        raise RequestError(f"{path}: is text, not {dtype} tokens. Read it with data=files.")
    found = _wider(some)
    if found:
        where = "three of four places" if dtype == "uint16" and found.endswith("64") else "every second place"
        advice = "Set data.dtype=uint32" if found == "uint32" else f"Save them as uint32: {_saving(found)}"
        raise RequestError(f"data.dtype={dtype}: {path} has zeros in {where}, as {found} tokens have. {advice}.")
    if len(some) >= ROWS and some.any() and not (some & 0xFF).any():
        raise RequestError(f"data.dtype={dtype}: {path} holds big-endian tokens. {_resave('>' + some.dtype.str[1:])}.")
    if _is_bytes(some):
        raise RequestError(f"data.dtype={dtype}: {path} holds tokens of one byte (uint8). {_resave('u1')}.")


def hint_of(tokens: Array, vocab_size: int) -> str:
    """Return the dtype that tokens beyond the vocabulary have instead; empty where none fits."""
    if tokens.dtype == np.uint32 and tokens[tokens >= vocab_size].min() > np.iinfo(np.int32).max:
        return "; int32 read as uint32, so it is negative: leave such padding out"
    swapped, halves = tokens.byteswap(), tokens.view(np.uint16)
    if tokens.dtype == np.uint32 and halves.max() < vocab_size and halves[1::2].any():
        return "; the file holds uint16: set data.dtype=uint16"
    if swapped.max() < vocab_size:
        return "; the file is big-endian: write it as little-endian"
    return ""


def _wider(some: Array) -> str:
    """Return the wider integer that tokens are parts of; empty for none."""
    ratios = ((4, "int64"), (2, "uint32")) if some.dtype == np.uint16 else ((2, "int64"),)
    for ratio, name in ratios:
        rows = some[: len(some) // ratio * ratio].reshape(-1, ratio)
        if len(rows) < ROWS:
            continue
        big_endian = rows[:, ::-1].byteswap()
        if _is_split(rows):
            return name
        if _is_split(big_endian):
            return f"big-endian {name}"
    return ""


def _is_split(rows: Array) -> bool:
    """Return whether rows (N, 2 or 4) are the parts of wider ids, the lowest first.

    The upper parts are zero, or small in at most half of the rows beside lower parts that are not. The largest integer
    is the upper part of a negative number, as padding has.
    """
    low, high, signs, negative = rows[:, 0], rows[:, 1], rows[:, 2:], np.iinfo(rows.dtype).max
    if ((signs != 0) & (signs != negative)).any() or np.count_nonzero(signs) > signs.size // 2:
        return False
    if not high.any():
        return np.count_nonzero(low) >= len(low) // 4
    small = (high < HIGH) | (high == negative)
    return bool(small.all()) and np.count_nonzero(high) <= len(high) // 2 and len(np.unique(low[: 1 << 14])) > 2 * HIGH


def _has_header(some: Array) -> bool:
    """Return whether the tokens follow a few numbers that are filled up with zeros to a block."""
    head = some.tobytes()[: 64 << 10]
    rest = head[1024:]
    padded = any(head[:64]) and not any(head[64:512]) and len(rest) > 1024
    return padded and rest.count(0) < 0.6 * len(rest)


def _is_text(some: Array) -> bool:
    """Return whether the bytes are UTF-8 text without zeros or control characters."""
    head = some.tobytes()[: 64 << 10]
    if len(head) < 4 * ROWS or b"\0" in head or not is_utf8(head):
        return False
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in set(head))


def _is_bytes(some: Array) -> bool:
    """Return whether all bytes are below 128 though high bytes are in use, which ids of two bytes never do."""
    parts = some.view(np.uint8).reshape(-1, some.dtype.itemsize)
    if len(parts) < 8 * ROWS or not all(part.any() for part in parts.T):
        return False
    return int(parts.max()) < 128 and len(np.unique(parts[:, -1])) > 2 * HIGH


def _saving(found: str) -> str:
    order = ">i" if found.startswith("big-endian") else "<i"
    width = "8" if found.endswith("64") else "4"
    return f"np.fromfile(FILE, '{order}{width}').astype('<u4').tofile(NEW)"


def _resave(dtype: str) -> str:
    return f"Save them as little-endian: np.fromfile(FILE, '{dtype}').astype('<u2').tofile(NEW)"
