"""The documents of a store: what a run is, what came of it, and what a segment is. Names in them that may be paths."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Literal

import msgspec

from proxytrain.config.overrides import leaves
from proxytrain.config.recipe import Recipe, canonical
from proxytrain.config.schedule import Phase, Schedule
from proxytrain.config.schema import AnyOptimizer, Model, Parametrization
from proxytrain.errors import RequestError
from proxytrain.files.documents import Document
from proxytrain.model.accounting import ParamCounts

Key = tuple[str, int]  # of a segment: lineage, end
Status = Literal["done", "diverged"]
ID = re.compile(r"[A-Za-z0-9]+")


class RunSettings(Document, frozen=True, kw_only=True):
    """The configuration of one run: `config.yaml`."""

    model: Model
    parametrization: Parametrization
    optimizer: AnyOptimizer
    schedule: Schedule
    tokens: int
    lr: float
    warmup: int
    batch_tokens: int
    init_seed: int
    data_seed: int


class RunRecord(Document, frozen=True, kw_only=True, dict=True):
    """A run as its plan names it."""

    id: str
    params: ParamCounts
    flops: float
    config: RunSettings

    @property
    def schedule(self) -> str:
        """Return the name of its schedule."""
        return self.config.schedule.name

    @property
    def tokens(self) -> int:
        """Return its length."""
        return self.config.tokens

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Return the dotted keys of its configuration with their values, without those at their default."""
        return dict(leaves(canonical(self.config)))


class Environment(Document, frozen=True, kw_only=True):
    """What trained a segment or a run."""

    numerics_version: int = 1
    device: str = ""
    versions: dict[str, str] = msgspec.field(default_factory=dict)


class How(Document, frozen=True, kw_only=True):
    """How a segment was trained."""

    members: int = 0  # of the pack
    micro_batches: int = 0
    compiled: bool = False
    native: bool = False  # with the CPU kernels
    eval_every: int = 0
    eval_tokens: int = 0
    telemetry_every: int = 0


class RunResult(Environment, frozen=True, kw_only=True):
    """What came of a run: `result.json`."""

    id: str
    status: Status
    final_loss: float | None  # on the whole validation set, nats/token; None: it diverged
    val_se: float | None = None  # sampling error of that
    bits_per_byte: float | None = None
    diverged_at: int | None = None  # tokens
    params: ParamCounts
    tokens: int
    flops: float
    schedule: str = ""
    lr: float
    epochs: float = 0.0
    seconds: float = 0.0  # of training, those of its trunk included
    lineage: str
    end: int
    recipe_id: str
    recipe: Recipe

    @property
    def key(self) -> Key:
        """Return the segment that it ended with."""
        return self.lineage, self.end


class SegmentMeta(How, frozen=True, kw_only=True):
    """What a published segment is: `segment.json`."""

    lineage: str = ""
    end: int
    parent: Key | None
    recipe: str = ""
    phases: tuple[Phase, ...] = ()
    status: Status
    diverged_at: int | None = None
    telemetry: tuple[str, ...] = ()  # columns
    seconds: float  # of training
    path_seconds: float  # and of all segments before it
    numerics_version: int = 1
    device: str = ""
    versions: dict[str, str] = msgspec.field(default_factory=dict)


class StoreFormat(Document, frozen=True):
    """The format of a store: `store.json`."""

    format: int


def check_id(text: object) -> str:
    """Return a name from a plan or a result, which must not lead out of the store."""
    if not isinstance(text, str) or not ID.fullmatch(text):
        raise RequestError(f"{text!r}: no id of a run or a segment")
    return text
