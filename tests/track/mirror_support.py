"""What tests of the mirror share: a key, a small sweep, its plan."""

from __future__ import annotations

from support import TINY, TINY_TEXT

from proxytrain.plan import freeze
from proxytrain.store.store import Store

KEY = "a" * 40
SWEEP = [
    *TINY_TEXT,
    *TINY,
    "sweep.name=s",
    "sweep.grids=[{tokens:[8192,16384,32768,65536],init_seed:[0,1]}]",
    "sweep.target={tokens:73728}",
    "fit.law=power_in_tokens",
    "fit.allow_extrapolation=true",
]


def plan_of(store: Store, name: str = "s") -> freeze.Plan:
    return freeze.load(store.sweep(name) / "plan.json")
