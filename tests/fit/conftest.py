"""Tables for the tests of the fit: published ones where they are at hand, and our own with a known answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fit_tables import chinchilla

SHARED = Path(__file__).parents[3] / "shared" / "data" / "losses"


@pytest.fixture
def published():
    """Path of a published table of losses, or a skip."""

    def path(name: str) -> Path:
        if not (SHARED / name).is_file():
            pytest.skip(f"published table {name} is not at hand (../shared/data)")
        return SHARED / name

    return path


@pytest.fixture
def grid():
    """A noiseless table: five sizes by five lengths of a known Chinchilla law."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5)))
    return {"params": n, "tokens": d, "loss": chinchilla(n, d)}
