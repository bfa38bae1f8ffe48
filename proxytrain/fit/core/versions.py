"""Versions of what the numbers of a fit depend on."""

from __future__ import annotations

import platform

import numpy as np


def versions() -> dict[str, str]:
    """Return the versions of proxytrain, numpy, scipy and Python."""
    from importlib.metadata import PackageNotFoundError, version

    import scipy

    try:
        own = version("proxytrain")
    except PackageNotFoundError:
        own = "unknown"
    return {"proxytrain": own, "numpy": np.__version__, "scipy": scipy.__version__, "python": platform.python_version()}
