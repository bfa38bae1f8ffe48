"""`data=prose`: the English in Python sources, each docstring and each block of comments a document of its own.

Prose is what people train language models on, and there are 20 MB of it on every machine with the pins. Short remarks
and copies (licences above all) are left out.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

LEAST_BYTES = 100
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
COMMENT = re.compile(r"\s*#+!?:? ?(.*)")


def read_prose(sources: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, bytes]]:
    """(stable name, text) of every document, in the order of the sources and of the lines in them."""
    seen = set()
    for name, path in sources:
        for text in documents(path.read_bytes()):
            key = hashlib.blake2b(text, digest_size=8).digest()
            if key not in seen:
                seen.add(key)
                yield name, text


def documents(source: bytes) -> list[bytes]:
    """Docstrings and blocks of comments of one source, without indentation; none if it is not Python's syntax."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes
            tree = ast.parse(source)
        lines = source.decode().splitlines()
    except (SyntaxError, ValueError):
        return []
    found: list[tuple[int, str]] = []
    in_string: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and node.lineno != node.end_lineno:
            in_string.update(range(node.lineno, (node.end_lineno or 0) + 1))
        elif isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            found.append((node.body[0].lineno, text))
    remarks = [
        (i, match[1]) for i, x in enumerate(lines, start=1) if (match := COMMENT.fullmatch(x)) and i not in in_string
    ]
    for _, block in itertools.groupby(enumerate(remarks), key=lambda item: item[1][0] - item[0]):
        numbered = [remark for _, remark in block]
        found.append((numbered[0][0], "\n".join(text for _, text in numbered).strip()))
    encoded = (text.encode(errors="ignore") for _, text in sorted(found))
    return [text for text in encoded if len(text) >= LEAST_BYTES]
