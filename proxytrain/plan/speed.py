"""How fast a machine is: what `proxytrain probe` measured on it, or estimates from figures of its kind.

    speeds.json   machine -> {"flops", "bandwidth", "updates": {"SHAPE/MEMBERS/eager|compiled": {"seconds", "memory"}}}

A machine is named by its processor and the threads of a worker, or by its GPU.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from proxytrain.config.recipe import Recipe
from proxytrain.errors import RequestError
from proxytrain.files.atomic import read_json, write_json
from proxytrain.plan.pack import Pack
from proxytrain.store.documents import NUMBER, fits
from proxytrain.store.store import Store

UPDATE = re.compile(r"[^/]+/[1-9]\d*/(eager|compiled)")

# Dense peaks of data sheets: bfloat16 and float32 FLOP/s, bytes/s
GPUS = {
    "H200": (989e12, 67e12, 4.8e12),
    "H100 PCIe": (756e12, 51e12, 2.0e12),
    "H100": (989e12, 67e12, 3.35e12),
    "A100": (312e12, 19.5e12, 2.0e12),
    "L40S": (362e12, 91.6e12, 0.86e12),
    "L4": (121e12, 30.3e12, 0.3e12),
    "A10": (125e12, 31.2e12, 0.6e12),
    "V100": (15.7e12, 15.7e12, 0.9e12),
}
GPU = (100e12, 20e12, 1e12)  # any other
CPU = (100e9, 100e9, 10e9)  # a thread of a server core with AVX-512


@dataclass(frozen=True)
class Speeds:
    """Of one worker of a machine: FLOP/s and bytes/s at best, and the updates that were measured."""

    name: str
    flops: float
    bandwidth: float
    measured: bool = False  # whether the two above are
    updates: dict[str, dict[str, float]] = field(default_factory=dict)

    def update(self, pack: Pack, compiled: bool) -> float | None:
        """Measured seconds of an update of a pack, from the nearest number of members; None where there is none."""
        recipe, members = pack.members[0].recipe, len(pack.members)
        how = "compiled" if compiled else "eager"
        found = []
        for key, row in self.updates.items():
            shape, k, way = key.split("/")
            if (shape, way) == (recipe.shape, how):
                found.append((abs(math.log(int(k) / members)), row["seconds"] * members / int(k)))
        return min(found)[1] if found else None

    def token(self, recipe: Recipe) -> dict[tuple[int, str], float]:
        """Measured seconds of one token of a recipe in a pack, by its members and how it was trained."""
        found = {}
        for key, row in self.updates.items():
            shape, k, how = key.split("/")
            if shape == recipe.shape:
                found[int(k), how] = row["seconds"] / int(k) / recipe.batch_tokens
        return found


def load(store: Store, name: str, device: str, precision: str = "float32", threads: int = 1) -> Speeds:
    """What is known of a machine.

    Raises
    ------
    RequestError
        If the file is not what `keep` writes.
    """
    table = next((row for word, row in GPUS.items() if word in name), GPU)
    scale = 1 if device == "cuda" else threads
    bf16, fp32, bandwidth = table if device == "cuda" else CPU
    flops = bf16 if precision == "bfloat16" else fp32
    known = _content(store).get(name, {})
    if not _whole(known):
        raise RequestError(f"{store.root / 'speeds.json'}: not what `proxytrain probe` writes there; delete it")
    if "flops" in known:
        flops, bandwidth, scale = known["flops"], known["bandwidth"], 1
    return Speeds(name, flops * scale, bandwidth * scale, "flops" in known, known.get("updates", {}))


def keep(store: Store, name: str, found: dict[str, Any]) -> None:
    """Write down what was measured, beside what was known."""
    content = _content(store)
    before = content.get(name, {})
    updates = {**before.get("updates", {}), **found.get("updates", {})}
    write_json(store.root / "speeds.json", {**content, name: {**before, **found, "updates": updates}})


def _whole(known: dict[str, Any]) -> bool:
    """Whether what is known of a machine is what `keep` writes."""
    if not fits(known, {}) or not fits(rows := known.get("updates", {}), {}):
        return False
    peak = "flops" not in known or fits(known, {"flops": NUMBER, "bandwidth": NUMBER})
    return peak and all(UPDATE.fullmatch(k) and fits(row, {"seconds": NUMBER}) for k, row in rows.items())


def key(pack: Pack, compiled: bool) -> str:
    how = "compiled" if compiled else "eager"
    return f"{pack.members[0].recipe.shape}/{len(pack.members)}/{how}"


def _content(store: Store) -> dict[str, Any]:
    content = read_json(store.root / "speeds.json")
    return content if isinstance(content, dict) else {}
