"""One direction of data: a room imports only from those before it; torch only where training happens."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import proxytrain

PACKAGE = Path(proxytrain.__file__).parent
ORDER = [
    {"cache", "errors", "process", "types"},
    {"schedule", "fit"},
    {"config"},
    {"scale"},
    {"compose"},
    {"layout", "parametrization", "kernels", "native"},
    {"accounting", "corpus", "ops"},
    {"runs", "store", "model", "optimizer"},
    {"plan"},
    {"train"},
    {"launch", "track"},
    {"request"},
    {"outcomes"},
    {"sweep", "housekeeping"},
    {"branch", "report"},
    {"verbs"},
    {"cli"},
    {"__main__", "__init__"},
]
RANK = {room: i for i, rooms in enumerate(ORDER) for room in rooms}
TORCH = {"model", "optimizer", "ops", "native", "kernels", "train"}


SCRIPTS = sorted(PACKAGE.parent.glob("scripts/*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_names_that_scripts_take_from_each_other_are_there(script: Path) -> None:
    trees = {p.stem: ast.parse(p.read_text(encoding="utf-8")) for p in SCRIPTS}
    for node in ast.walk(trees[script.stem]):
        if isinstance(node, ast.ImportFrom) and node.module in trees:
            top = trees[node.module].body
            known = {n.name for n in top if isinstance(n, ast.FunctionDef | ast.ClassDef)}
            known |= {t.id for n in top if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
            assert {a.name for a in node.names} <= known, node.module


def imported(path: Path) -> set[tuple[str, bool]]:
    """(module, whether it is imported when the file is) of every import outside TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    typing_only = {
        n for b in ast.walk(tree) if isinstance(b, ast.If) and "TYPE_CHECKING" in ast.dump(b.test) for n in ast.walk(b)
    }
    top = set(tree.body)
    found = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {(a.name, node in top) for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"proxytrain.{a.name}" for a in node.names] if node.module == "proxytrain" else [node.module]
            found |= {(n, node in top) for n in names}
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_from_those_before_it(path):
    here = room(path)
    for name, _ in imported(path):
        if name.startswith("proxytrain.") and here != "__init__":
            other = name.split(".")[1]
            assert other == here or RANK[other] < RANK[here] or {here, other} == {"launch", "track"}, name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_torch_is_imported_where_training_happens(path):
    for name, at_the_top in imported(path):
        if name.split(".")[0] == "torch":
            assert room(path) in TORCH or (room(path) == "launch" and not at_the_top)


def test_fit_knows_nothing_of_training():
    for path in (PACKAGE / "fit").rglob("*.py"):
        ours = {n.split(".")[1] for n, _ in imported(path) if n.startswith("proxytrain.")}
        assert ours <= {"fit", "errors", "types"}, path


def test_importing_costs_neither_torch_nor_scipy():
    code = "import sys, proxytrain; assert not {'torch', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_public_name_is_there():
    for name in proxytrain.__all__:
        assert getattr(proxytrain, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = proxytrain.nothing
