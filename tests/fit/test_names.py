"""One name has one meaning in the packages of the fit and the analyses."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import proxytrain

PACKAGE = Path(proxytrain.__file__).parent


def names(path: Path) -> set[str]:
    """Return the classes and constants that a module defines."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return {name for name in found if not name.startswith("__")}


def test_no_class_or_constant_of_the_fits_is_defined_in_two_files():
    homes = defaultdict(set)
    for path in (p for folder in ("fit", "analysis") for p in (PACKAGE / folder).rglob("*.py")):
        for name in names(path):
            homes[name].add(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}
