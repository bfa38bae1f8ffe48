"""Compiled functions of the rows of a pack, kept in this user's cache, so that a shape compiles once on a machine.

On a CPU a program is loaded from its file as it is, and nothing is traced again. It is one for any number of members,
so that a member's bits do not depend on it. On a GPU, where this was not tried, and before torch 2.13, each process
traces a function for each number of members; what its compiler then makes is in the cache. Compiled code is for one
kind of processor, and is run: it lies with this user's files, never in a store.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from proxytrain import cache

VERSIONS = 512  # of one function that may be traced: shapes times sizes
KEEPS = hasattr(torch.compiler, "keep_portable_guards_unsafe")
MEMBERS = 4  # of packs that the compiler has in mind
PACKAGE = Path(__file__).parents[1]
PROGRAMS: dict[Path, Callable] = {}  # of this process


def _sources() -> str:
    """Of what programs are made from: this package, torch and Python."""
    digest = hashlib.blake2b(f"{torch.__version__} {sys.version}".encode(), digest_size=16)
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


SOURCES = _sources()  # now: files may be replaced under a process that has imported them
Function = Callable[..., Tensor]  # of tensors (K, ...), and of what is the same for all members


def compiled(function: Function, name: str, rows: tuple[Tensor, ...], fixed: tuple) -> Function:
    """`function(rows, fixed)` as one program for arguments of these shapes and types, see `for_any_number` of K.

    Others raise RuntimeError.

    Parameters
    ----------
    name : tells the function and the shapes of its arguments, K apart, from all others
    rows : (K, ...) each
    fixed : tensors, and numbers that become part of the program
    """
    _prepare()
    if not for_any_number(rows[0].device.type):
        return _traced(function)
    return _kept(name) or _compile(function, name, rows, fixed)


def for_any_number(device: str) -> bool:
    """Whether a program takes packs of all sizes; where not, each size is compiled anew."""
    return device == "cpu" and KEEPS


def is_kept(name: str) -> bool:
    """Whether a program is there, and need not be compiled."""
    return _path(name).exists()


def _kept(name: str) -> Function | None:
    """The program of a file; None where there is none, or none that can be read."""
    path = _path(name)
    if path not in PROGRAMS:
        try:
            PROGRAMS[path] = _load(path)
        except Exception:  # of a damaged file, which is made anew
            return None
    return PROGRAMS[path]


def _compile(function: Function, name: str, rows: tuple[Tensor, ...], fixed: tuple) -> Function:
    path, rows = _path(name), tuple(x.new_empty_strided((MEMBERS, *x.shape[1:]), x.stride()) for x in rows)
    for x in rows:  # with `mark_dynamic` one member would have a program, and bits, of its own
        torch._dynamo.decorators.mark_unbacked(x, 0, hint_override=MEMBERS, shape_id="K", min=1)
    options: dict[str, Any] = {
        # Other guards are on what the function takes from outside, which `name` tells, and cannot be written.
        "guard_filter_fn": torch.compiler.keep_portable_guards_unsafe,
        "cpp_wrapper": True,  # one file for g++ instead of one for each of some 20 kernels
    }
    traced = torch.compile(function, fullgraph=True, options=options)
    with cache.alone(path):
        if found := _kept(name):  # another process has compiled it meanwhile
            return found
        with contextlib.suppress(OSError):  # a full disk
            what = f"{function.__name__} of {rows[0].shape[1]:,} floats a member"
            print(f"compiling {what}, once a machine", file=sys.stderr, flush=True)
        traced.aot_compile(((rows, fixed), {})).save_compiled_function(str(path))  # type: ignore[attr-defined]
    PROGRAMS[path] = _load(path)
    return PROGRAMS[path]


def _path(name: str) -> Path:
    key = hashlib.blake2b(f"{SOURCES} {torch.get_num_threads()} {name}".encode(), digest_size=16)
    return cache.folder() / "programs" / f"{key.hexdigest()}.bin"


def _load(path: Path) -> Function:
    with path.open("rb") as file:
        return torch.compiler.load_compiled_function(file)


@functools.cache
def _traced(function: Function) -> Function:
    return torch.compile(function, fullgraph=True)


@functools.cache
def _prepare() -> None:
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache.folder()))
    import torch._dynamo

    config = torch._dynamo.config
    config.recompile_limit = config.accumulated_recompile_limit = VERSIONS
    config.automatic_dynamic_shapes, config.specialize_float = False, True
