"""`data=files`: which files are read, each once, and how each of them is read.

All files are looked at before any is read, so what cannot be read is refused first. Formats are described in `sniff`.
"""

from __future__ import annotations

import filecmp
import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from proxytrain.corpus.ends import Ends
from proxytrain.corpus.pieces import documents
from proxytrain.corpus.records import read_csv, read_lines, read_parquet, read_values
from proxytrain.corpus.saved import files_in, is_saved, read_saved
from proxytrain.corpus.sniff import Reading, reading_of
from proxytrain.corpus.unpack import unpacked
from proxytrain.errors import RequestError

NOTED = 0.01  # share of the bytes from which a reading that is not the usual one is reported


@dataclass(frozen=True)
class Source:
    """A file, and how it is read."""

    path: str
    reading: Reading
    size: int  # bytes on disk
    packed: bool
    encoding: str
    begin: bytes  # hash of the first bytes, unpacked


@dataclass(frozen=True)
class Survey:
    """All files of a request.

    Attributes
    ----------
    sources : files in the order in which they are read
    total : bytes of text; None where packing hides it
    notices : what a user should know of how they are read
    """

    sources: list[Source]
    total: int | None
    notices: list[str]


def find_files(patterns: list[str]) -> list[str]:
    """Return files that match the globs (`**` is any depth), in the order of the globs, sorted within each.

    A file that several paths lead to (links, `./`, a second glob) is there once.

    Raises
    ------
    RequestError : a glob that matches nothing, or an empty file that was named without wildcards
    """
    found: dict[tuple[int, int], str] = {}
    for pattern in patterns:
        path = os.path.expanduser(pattern)
        if os.path.isfile(path) and not os.path.getsize(path):
            raise RequestError(f"data.files: {pattern} is empty")
        paths = [path] if os.path.isfile(path) or is_saved(path) else _matches(path)
        if not paths and os.path.isdir(path):
            raise RequestError(f"data.files={pattern}: is a folder. Name its files: {os.path.join(pattern, '**/*')}.")
        if not paths:
            raise RequestError(f"data.files: no file matches {pattern!r} (from {os.getcwd()})")
        for path in paths:
            stat = os.stat(path)
            found.setdefault((stat.st_dev, stat.st_ino), path)
    if not found:
        raise RequestError("data.files is empty: name files or globs, such as data.files='[texts/**/*.md]'")
    return list(found.values())


def survey(paths: list[str], text_key: str) -> Survey:
    """Look at all files: how each is read, and what is no text.

    Raises
    ------
    RequestError : an archive, binary files only, or records without the key of the text
    """
    found = [_look(path, text_key) for path in paths]
    texts = [s for s in found if s.reading.binary is None]
    notices = _refuse_binary(found, texts) + _refuse_keyless(texts, text_key) + _unusual(texts) + _copies(texts)
    hidden = any(s.packed or s.reading.format in ("parquet", "saved") for s in texts)
    return Survey(texts, None if hidden else sum(s.size for s in texts), notices)


def read_files(sources: list[Source], text_key: str, ends: Ends) -> Iterator[tuple[str, bytes]]:
    """Yield (where it comes from, text) of every document."""
    for source in sources:
        path, format = source.path, source.reading.format
        if format == "saved":
            yield from _read_saved(path, text_key, ends)
        elif format == "parquet":
            yield from _read_parquet(path, text_key, ends)
        else:
            with unpacked(path) as opened:
                file = cast(BinaryIO, opened.file)
                if format == "text":
                    for piece in documents(file, ends):
                        yield path, piece
                else:
                    read = {"lines": read_lines, "values": read_values, "csv": read_csv}[format]
                    yield from read(path, file, text_key, ends)


def _matches(pattern: str) -> list[str]:
    """Return files that match a glob, and folders of save_to_disk instead of the files in them."""
    found = sorted(glob.glob(pattern, recursive=True))
    saved = [os.path.join(path, "") for path in found if os.path.isdir(path) and is_saved(path)]
    inside = tuple(saved)
    return [p for p in found if os.path.isfile(p) and not p.startswith(inside)] + saved


def _read_parquet(path: str, text_key: str, ends: Ends) -> Iterator[tuple[str, bytes]]:
    try:
        yield from read_parquet(path, text_key, ends)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror or ' '.join(str(error).split())})") from None


def _read_saved(path: str, text_key: str, ends: Ends) -> Iterator[tuple[str, bytes]]:
    try:
        yield from read_saved(path, None, text_key, "data.text_key", ends)
    except RequestError:
        raise
    except Exception as error:  # the library raises its own, pyarrow's and built-in ones
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise RequestError(f"data.files={path}: not a readable folder of save_to_disk ({why})") from None


def _look(path: str, text_key: str) -> Source:
    if os.path.isdir(path):
        size = sum(os.path.getsize(file) for file in files_in(path))
        return Source(path, Reading("saved"), size, False, "", path.encode())
    with unpacked(path) as opened:
        head = opened.head()
        begin = hashlib.blake2b(head, digest_size=16).digest() if head else b""
        reading = reading_of(path, opened, text_key)
        return Source(path, reading, os.path.getsize(path), opened.packed, opened.encoding, begin)


def _refuse_binary(found: list[Source], texts: list[Source]) -> list[str]:
    """Refuse what holds texts that are not read, and binary files alone; other ones are left out and counted."""
    others = [(s, s.reading.binary) for s in found if s.reading.binary is not None]
    for source, kind in others:
        if kind.holds_texts or not any(s.begin for s in texts):
            raise RequestError(f"data.files={source.path}: is {kind.name}, which is not read as text. {kind.advice}.")
    if not others:
        return []
    source, kind = others[0]
    return [f"{_count(len(others), 'file')} left out as not text (the first: {source.path}, {kind.name})"]


def _refuse_keyless(texts: list[Source], text_key: str) -> list[str]:
    """Refuse records without the key of the text, unless they are few among source files."""
    keyless = [s for s in texts if s.reading.keyless]
    if not keyless:
        return []
    plain = [s for s in texts if s.reading.format == "text" and not s.reading.keyless]
    first = keyless[0]
    if first.path.lower().endswith(".json") and sum(s.size for s in keyless) > sum(s.size for s in plain):
        raise RequestError(
            f"{first.path}: no key data.text_key={text_key!r} (found: {first.reading.keyless}). "
            "Name the key of the text."
        )
    return [
        f"{_count(len(keyless), 'JSON file')} without the key data.text_key={text_key!r} read as plain text "
        f"(the first: {first.path}, with {first.reading.keyless})"
    ]


def _unusual(texts: list[Source]) -> list[str]:
    """Report files whose content, not their suffix, says how they are read."""
    files: dict[str, list[Source]] = {}
    for source in texts:
        what = source.reading.unusual or (f"{source.encoding} text" if source.encoding else "")
        if what:
            files.setdefault(what, []).append(source)
    return [
        f"{_count(len(some), 'file')} read as {what} (the first: {some[0].path})"
        for what, some in files.items()
        if _matter(some, texts)
    ]


def _copies(texts: list[Source]) -> list[str]:
    """Report files with the content of another one."""
    first: dict[bytes, Source] = {}
    twins = {}
    for source in filter(lambda s: s.begin, texts):
        twin = first.setdefault(source.begin, source)
        if twin is not source and _same(twin, source):
            twins[source.path] = (source, twin)
    if not _matter([source for source, _ in twins.values()], texts):
        return []
    copy, twin = next(iter(twins.values()))
    return [
        f"{_count(len(twins), 'file')} read though another has the same content; the text counts twice "
        f"(the first: {copy.path}, the same as {twin.path})"
    ]


def _matter(some: list[Source], texts: list[Source]) -> bool:
    """Return whether files hold enough of the bytes to be reported."""
    return bool(some) and sum(s.size for s in some) >= NOTED * sum(s.size for s in texts)


def _same(a: Source, b: Source) -> bool:
    """Return whether files that begin alike are alike: byte by byte, or as far as seen if only one is packed."""
    return a.packed != b.packed or (a.size == b.size and filecmp.cmp(a.path, b.path, shallow=False))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{' was' if number == 1 else 's were'}"
