"""How far runs and packs are, as values: what a worker reports of its pack, and a plan at one moment."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from proxytrain.files.documents import Document
from proxytrain.model import accounting
from proxytrain.plan.claims import Holder
from proxytrain.plan.freeze import Plan
from proxytrain.plan.pack import Pack


class PackReport(Document, frozen=True, kw_only=True):
    """What a worker last reported of its pack: `progress.json`."""

    tokens: int  # trained, of all members
    begun: int  # of these, before this attempt
    total: int
    tokens_per_second: float
    members: int = 0  # that are still training
    width: int = 0
    loss: list[float | None] = msgspec.field(default_factory=list)  # per member; None: not finite
    peak_flops: float = 0.0  # FLOP/s of the worker at best


class RunState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run at one moment."""

    state: Literal["done", "diverged", "failed", "running", "waiting"]
    loss: float | None = None
    why: str = ""  # it failed
    log: str | None = None
    on: Holder | None = None  # who trains it
    attempts: int = 0
    report: PackReport | None = None  # of its pack


@dataclass(frozen=True)
class AtWork:
    """A pack that a living worker holds."""

    pack: Pack
    on: Holder
    attempt: int
    report: PackReport | None

    @property
    def tokens(self) -> int:
        return self.report.tokens if self.report else 0

    @property
    def speed(self) -> float:
        """Return tokens per second."""
        return self.report.tokens_per_second if self.report else 0.0

    @property
    def flops(self) -> float:
        """Return model FLOPs per second."""
        recipe = self.pack.members[0].recipe
        return self.speed * accounting.flops_per_token(recipe.model, recipe.vocab)


@dataclass(frozen=True, kw_only=True)
class PlanProgress:
    """A plan at one moment."""

    plan: Plan
    runs: dict[str, RunState]  # by id
    tokens: int  # trained, of those that the plan trains
    total: int
    share: float  # of the work, by the plan's cost
    at_work: list[AtWork]
    seconds_left: float | None  # None while nobody works
    events: list[tuple[float, str]]  # the last ones: time, what happened

    @property
    def counts(self) -> Counter[str]:
        """Return the number of runs by state."""
        return Counter(run.state for run in self.runs.values())

    @property
    def over(self) -> bool:
        """Return whether nothing is left but what failed."""
        return not self.counts["running"] and not self.counts["waiting"]

    @property
    def speed(self) -> float:
        return sum(a.speed for a in self.at_work)

    @property
    def flops(self) -> float:
        return sum(a.flops for a in self.at_work)

    @property
    def utilisation(self) -> float | None:
        """Return model FLOPs per second as a share of the workers' peak; None before they report."""
        peak = sum(a.report.peak_flops for a in self.at_work if a.report)
        return self.flops / peak if peak else None

    def summary(self) -> dict[str, Any]:
        """Return the totals as plain values."""
        return {
            "tokens": self.tokens,
            "tokens_to_train": self.total,
            "share_of_work": self.share,
            "tokens_per_second": self.speed,
            "flops_per_second": self.flops,
            "utilisation": self.utilisation,
            "packs_at_work": len(self.at_work),
            "seconds_left": self.seconds_left,
        }
