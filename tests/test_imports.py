"""One direction of data: a package imports only from the levels above it; torch only where training happens. One name
per class and constant.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import proxytrain

PACKAGE = Path(proxytrain.__file__).parent
LEVELS = [  # a package imports from the levels above its own, function-level imports included
    {"arrays", "errors", "process", "types"},
    {"files"},
    {"fit.tables", "kernels"},
    {"fit.core"},
    {"config", "fit.curves", "fit.losses", "fit.optimum"},
    {"analysis", "corpus", "fit", "model"},
    {"store"},
    {"optim", "plan"},
    {"monitor", "train"},
    {"launch", "track"},
    {"sweep"},
    {"report"},
    {"cli"},
    {"__init__", "__main__"},
]
LEVEL = {package: i for i, packages in enumerate(LEVELS) for package in packages}
AT_THE_TOP = {"__init__", "__main__", "arrays", "errors", "process", "types"}
TORCH = {"kernels", "model", "optim", "train"}
CLASSES_LEFT_OUT: tuple[str, ...] = ("analysis", "fit")  # among themselves they are checked in tests/fit/test_names.py
CONSTANTS_OF = ("launch", "monitor", "plan", "store", "sweep", "track", "train")

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
            ours = node.module == "proxytrain" or node.module.startswith("proxytrain.")
            full = [f"{node.module}.{a.name}" for a in node.names]  # a module of a package, or a name in a module
            names = (
                [n if n.removeprefix("proxytrain.") in MODULES else node.module for n in full]
                if ours
                else [node.module]
            )
            found |= {(n, node in top) for n in names}
    return found


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(p.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for p in FILES}


def package(module: str) -> str:
    """The package of a module below proxytrain: `fit.losses` for `fit.losses.laws`, `fit` for `fit.saving`."""
    parts = module.split(".")
    inside = parts[0] == "fit" and len(parts) > 1 and f"fit.{parts[1]}.{'.'.join(parts[2:])}".rstrip(".") in MODULES
    return ".".join(parts[:2]) if inside and (PACKAGE / "fit" / parts[1]).is_dir() else parts[0]


def here(path: Path) -> str:
    return package(".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"))


def test_few_files_are_at_the_top():
    assert {p.stem for p in PACKAGE.glob("*.py")} == AT_THE_TOP


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_package_imports_only_from_the_levels_above_it(path):
    own = here(path)
    for name, _ in imported(path):
        if name.startswith("proxytrain.") and own != "__init__":
            other = package(name.removeprefix("proxytrain."))
            assert other == own or LEVEL[other] < LEVEL[own], name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_torch_is_imported_where_training_happens(path):
    for name, at_the_top in imported(path):
        if name.split(".")[0] == "torch":
            assert here(path) in TORCH or (here(path) == "launch" and not at_the_top)


def files_by_name(names_in: Callable[[ast.Module], Iterator[str]], files: Iterable[Path]) -> dict[str, set[str]]:
    """Name -> files that define it."""
    found = defaultdict(set)
    for path in files:
        for name in names_in(ast.parse(path.read_text(encoding="utf-8"))):
            found[name].add(str(path.relative_to(PACKAGE)))
    return found


def classes(tree: ast.Module) -> Iterator[str]:
    return (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def constants(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (t.id for t in targets if isinstance(t, ast.Name) and t.id.isupper())


def test_no_two_files_define_a_class_of_one_name():
    files = [p for p in FILES if p.relative_to(PACKAGE).parts[0] not in CLASSES_LEFT_OUT]
    found = files_by_name(classes, files)
    assert {"Store", "Segment", "Plan"} <= set(found)
    assert {name: where for name, where in found.items() if len(where) > 1} == {}


def test_no_other_file_defines_a_constant_of_these_packages():
    mine = {str(p.relative_to(PACKAGE)) for p in FILES if p.relative_to(PACKAGE).parts[0] in CONSTANTS_OF}
    found = files_by_name(constants, FILES)
    assert found["PLAN_FORMAT"] == {"plan/freeze.py"}
    assert {name: where for name, where in found.items() if len(where) > 1 and where & mine} == {}


def test_fit_knows_nothing_of_training():
    for path in (PACKAGE / "fit").rglob("*.py"):
        ours = {n.split(".")[1] for n, _ in imported(path) if n.startswith("proxytrain.")}
        assert ours <= {"arrays", "errors", "files", "fit", "types"}, path


def test_importing_costs_neither_torch_nor_scipy():
    code = "import sys, proxytrain; assert not {'torch', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_public_name_is_there():
    for name in proxytrain.__all__:
        assert getattr(proxytrain, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = proxytrain.nothing
