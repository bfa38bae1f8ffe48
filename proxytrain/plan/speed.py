"""How fast a machine is: what `proxytrain probe` measured on it, or estimates from figures of its kind.

    speeds.json   machine -> MachineSpeed, its updates by "SHAPE/MEMBERS/eager|compiled"

A machine is named by its processor and the threads of a worker, or by its GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from proxytrain.config.recipe import Recipe
from proxytrain.files.documents import Document, read_document, write_document
from proxytrain.plan.pack import Pack
from proxytrain.store.store import Store

UPDATE = r"^[^/]+/[1-9]\d*/(eager|compiled)$"

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


class UpdateSpeed(Document, frozen=True, kw_only=True):
    """An update of a pack, as it was measured."""

    seconds: float


class MachineSpeed(Document, frozen=True, kw_only=True):
    """What was measured on one machine: FLOP/s and bytes/s of a worker at best, and updates of packs."""

    flops: float | None = None
    bandwidth: float | None = None
    updates: dict[Annotated[str, Meta(pattern=UPDATE)], UpdateSpeed] = msgspec.field(default_factory=dict)


@dataclass(frozen=True)
class Speeds:
    """Of one worker of a machine: FLOP/s and bytes/s at best, and the updates that were measured."""

    name: str
    flops: float
    bandwidth: float
    measured: bool = False  # whether the two above are
    updates: Mapping[str, UpdateSpeed] = field(default_factory=dict)

    def update(self, pack: Pack, compiled: bool) -> float | None:
        """Measured seconds of an update of a pack, from the nearest number of members; None where there is none."""
        recipe, members = pack.members[0].recipe, len(pack.members)
        how = "compiled" if compiled else "eager"
        found = []
        for key, row in self.updates.items():
            shape, k, way = key.split("/")
            if (shape, way) == (recipe.shape, how):
                found.append((abs(math.log(int(k) / members)), row.seconds * members / int(k)))
        return min(found)[1] if found else None

    def token(self, recipe: Recipe) -> dict[tuple[int, str], float]:
        """Measured seconds of one token of a recipe in a pack, by its members and how it was trained."""
        found = {}
        for key, row in self.updates.items():
            shape, k, how = key.split("/")
            if shape == recipe.shape:
                found[int(k), how] = row.seconds / int(k) / recipe.batch_tokens
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
    known = _content(store).get(name, MachineSpeed())
    if measured := known.flops is not None and known.bandwidth is not None:
        flops, bandwidth, scale = known.flops, known.bandwidth, 1
    return Speeds(name, flops * scale, bandwidth * scale, measured, known.updates)


def keep(store: Store, name: str, found: MachineSpeed) -> None:
    """Write down what was measured, beside what was known."""
    content = _content(store)
    before = content.get(name, MachineSpeed())
    peaks = found if found.flops is not None else before
    content[name] = replace(peaks, updates={**before.updates, **found.updates})
    write_document(store.root / "speeds.json", content)


def key(pack: Pack, compiled: bool) -> str:
    how = "compiled" if compiled else "eager"
    return f"{pack.members[0].recipe.shape}/{len(pack.members)}/{how}"


def _content(store: Store) -> dict[str, MachineSpeed]:
    advice = "delete it, and `proxytrain probe` writes it again"
    return read_document(store.root / "speeds.json", dict[str, MachineSpeed], advice) or {}
