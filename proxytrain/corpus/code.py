"""`data=code`: the Python sources of this interpreter's standard library and of an allow-list of packages.

Tests are left out, and so are generated files, above all those that are written when a package or the interpreter is
built, so that machines with the same pins read the same text.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from proxytrain.corpus.pieces import pieces
from proxytrain.errors import RequestError

NOT_FOLDERS = {"test", "tests", "testing", "idle_test", "ensurepip", "generated", "serialized_patterns"}
NOT_FOLDERS |= {"site-packages", "dist-packages", "__pycache__"}
NOT_FILES = {"version.py", "_version.py", "_version_meson.py", "__config__.py", "sitecustomize.py", "usercustomize.py"}


def package_versions(packages: list[str]) -> dict[str, str]:
    """Versions of the interpreter and the packages.

    Raises
    ------
    RequestError : a package that is not installed
    """
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            raise RequestError(f"data.packages: {package!r} is not installed; install it or leave it out") from None
    return versions


def find_sources(packages: list[str]) -> list[tuple[str, Path]]:
    """(stable name, path) of every source, in an order that mixes the packages and depends on the names alone."""
    library = Path(sysconfig.get_path("stdlib"))
    sources = {}
    for folder, folders, names in os.walk(library):
        folders[:] = [f for f in folders if f not in NOT_FOLDERS and not f.startswith("config-")]
        for name in names:
            path = Path(folder, name)
            sources[f"python/{path.relative_to(library).as_posix()}"] = path
    for package in packages:
        files = importlib.metadata.distribution(package).files
        if files is None:
            raise RequestError(f"data.packages: {package!r} was installed without a list of its files; leave it out")
        sources.update({f"{package}/{file.as_posix()}": Path(file.locate()) for file in files})
    wanted = {name: path for name, path in sources.items() if _is_wanted(name)}
    return sorted(wanted.items(), key=lambda item: hashlib.blake2b(item[0].encode()).digest())


def read_sources(sources: list[tuple[str, Path]]) -> Iterator[tuple[str, bytes]]:
    """(stable name, text) of every document."""
    for name, path in sources:
        with open(path, "rb") as file:
            for piece in pieces(file):
                yield name, piece


def _is_wanted(name: str) -> bool:
    *folders, file = name.split("/")
    generated = file in NOT_FILES or file.startswith("_sysconfigdata") or file.endswith("_pb2.py")
    return file.endswith(".py") and ".." not in folders and not generated and not NOT_FOLDERS.intersection(folders)
