"""Packing: segments that must be trained become members, members of one shape become packs.

A member is a path through several segments. It follows a trunk to its end. The decay branches are members of later
packs, which start once all the states that they branch from are published. Packs are frozen: a plan names their members
once.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

from proxytrain.config.recipe import Recipe, digest
from proxytrain.model import accounting
from proxytrain.plan.share import Segment
from proxytrain.store.documents import Key

MOST_SEQUENCES = 65535  # fused attention on CUDA takes no larger batch (pytorch issue 142228)


@dataclass(frozen=True)
class Member:
    """One path of training: from the state `segments[0].parent` through `segments`, in order."""

    segments: tuple[Segment, ...]

    @property
    def recipe(self) -> Recipe:
        return self.segments[0].recipe

    @property
    def parent(self) -> Key | None:
        """The state that it starts from; None: the initial weights."""
        return self.segments[0].parent

    @property
    def start(self) -> int:
        return self.segments[0].start

    @property
    def end(self) -> int:
        return self.segments[-1].end

    @property
    def tokens(self) -> int:
        return self.end - self.start

    @property
    def averaged(self) -> bool:
        return any(s.averaged for s in self.segments)


@dataclass(frozen=True)
class Pack:
    """Members of one shape, trained together."""

    members: tuple[Member, ...]

    @cached_property
    def id(self) -> str:
        return digest(["pack", [[(s.key, s.parent, s.run_id) for s in m.segments] for m in self.members]])

    @property
    def needs(self) -> frozenset[Key]:
        """States that must be published before the pack can start."""
        return frozenset(m.parent for m in self.members if m.parent)


def pack(
    segments: dict[Key, Segment], *, memory: int, workers: int, largest: int, device: str, native: bool = False
) -> list[Pack]:
    """Return packs that train `segments` (parents first), longest first, with the longest that waits for them.

    Parameters
    ----------
    segments : what is still to be trained
    memory : bytes a pack may use
    workers : packs are not made larger than leaves work for each of them
    largest : most members of a pack (the throughput gained levels off)
    device, native : cpu or cuda, of which the memory is; see `accounting.pack_bytes`
    """
    groups: dict[tuple[int, str], list[Member]] = defaultdict(list)
    for level, member in _members(segments):
        groups[level, member.recipe.shape].append(member)
    shapes_at: dict[int, int] = defaultdict(int)
    for level, _ in groups:
        shapes_at[level] += 1
    packs = []
    for (level, _), members in groups.items():
        members.sort(key=lambda m: (-m.tokens, m.segments[0].key))
        spread = math.ceil(len(members) / math.ceil(workers / shapes_at[level]))
        fitting = _fitting(members[0].recipe, memory, any(m.averaged for m in members), device, native)
        size = max(1, min(largest, spread, fitting))
        size = math.ceil(len(members) / math.ceil(len(members) / size))
        packs += [(level, Pack(tuple(members[i : i + size]))) for i in range(0, len(members), size)]
    longest: dict[Key, float] = defaultdict(float)  # state -> FLOPs of the longest path that starts there
    paths = {}
    for _, p in sorted(packs, key=lambda item: -item[0]):  # what waits before what it waits for
        paths[p.id] = work(p) + max(longest[s.key] for m in p.members for s in m.segments)
        for key in p.needs:
            longest[key] = max(longest[key], paths[p.id])
    packs.sort(key=lambda item: (-paths[item[1].id], item[0], item[1].id))
    return [p for _, p in packs]


def work(pack: Pack) -> float:
    """Training FLOPs of a pack."""
    return sum(m.tokens * accounting.flops_per_token(m.recipe.model, m.recipe.vocab) for m in pack.members)


def _members(segments: dict[Key, Segment]) -> list[tuple[int, Member]]:
    """Return paths through the segments with their level: how many packs must come before."""
    children: dict[Key | None, list[Segment]] = defaultdict(list)
    for segment in segments.values():
        # a segment that is its own parent needs an evaluation only
        waits = segment.parent in segments and segment.parent != segment.key
        children[segment.parent if waits else None].append(segment)
    found: list[tuple[int, Member]] = []
    waiting = [(0, segment) for segment in children[None]]
    while waiting:
        level, segment = waiting.pop()
        path = [segment]
        while after := children.get(path[-1].key):
            trunk = [c for c in after if c.open] or (after if len(after) == 1 else [])
            waiting += [(level + 1, c) for c in after if c not in trunk[:1]]
            if not trunk:
                break
            path.append(trunk[0])
        found.append((level, Member(tuple(path))))
    return found


def _fitting(recipe: Recipe, memory: int, averaged: bool, device: str, native: bool) -> int:
    """How many members fit; at least one (micro-batches make a single member fit)."""
    sequences = recipe.batch_tokens // recipe.model.context

    def needed(k: int) -> int:
        own = recipe.batch_tokens, recipe.optimizer.name, k * averaged
        how = {"device": device, "precision": recipe.precision, "native": native}
        return accounting.pack_bytes(recipe.model, recipe.vocab, k, *own, **how)  # type: ignore[arg-type]

    one, two = needed(1), needed(2)
    return max(1, min(int((memory - one) / max(1, two - one)) + 1, MOST_SEQUENCES // sequences))
