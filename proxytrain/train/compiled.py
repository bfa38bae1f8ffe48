"""Functions compiled by torch. What its compiler makes is kept in this user's cache; each process traces them again."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import torch
from torch import Tensor

from proxytrain.kernels import cache

VERSIONS = 512  # of one function that may be traced: shapes times sizes
Function = Callable[..., Tensor]


@functools.cache
def compiled(function: Function) -> Function:
    """`function` as programs, one for each shape of its arguments. A part that cannot be compiled is an error."""
    _prepare()
    return torch.compile(function, fullgraph=True)


@functools.cache
def _prepare() -> None:
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache.folder()))
    import torch._dynamo

    config = torch._dynamo.config
    config.recompile_limit = config.accumulated_recompile_limit = VERSIONS
    config.automatic_dynamic_shapes, config.specialize_float = False, True
