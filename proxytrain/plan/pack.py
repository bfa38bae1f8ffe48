"""Packing: nodes that must be trained become members (ways through several nodes), members of one shape become packs.

A member follows a trunk through all its nodes; the endings that branch from it are members of later packs, which start
once all the states that they branch from are published. Packs are frozen: a plan names their members once and for all.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

from proxytrain.model import accounting
from proxytrain.plan.runs import Recipe, digest
from proxytrain.plan.share import Node
from proxytrain.store.store import Key

MOST_SEQUENCES = 65535  # fused attention on CUDA takes no larger batch (pytorch issue 142228)


@dataclass(frozen=True)
class Member:
    """One way of training: from the state `nodes[0].parent` through `nodes`, in order."""

    nodes: tuple[Node, ...]

    @property
    def recipe(self) -> Recipe:
        return self.nodes[0].recipe

    @property
    def parent(self) -> Key | None:
        """The state that it starts from; None: the initial weights."""
        return self.nodes[0].parent

    @property
    def start(self) -> int:
        return self.nodes[0].start

    @property
    def end(self) -> int:
        return self.nodes[-1].end

    @property
    def tokens(self) -> int:
        return self.end - self.start

    @property
    def averaged(self) -> bool:
        return any(n.averaged for n in self.nodes)


@dataclass(frozen=True)
class Pack:
    """Members of one shape, trained together."""

    members: tuple[Member, ...]

    @cached_property
    def id(self) -> str:
        return digest(["pack", [[(n.key, n.parent, n.run_id) for n in m.nodes] for m in self.members]])

    @property
    def needs(self) -> frozenset[Key]:
        """States that must be published before the pack can start."""
        return frozenset(m.parent for m in self.members if m.parent)


def pack(
    nodes: dict[Key, Node], *, memory: int, workers: int, largest: int, device: str, native: bool = False
) -> list[Pack]:
    """Packs that train `nodes` (parents before children), longest first, with the longest that waits for them.

    Parameters
    ----------
    nodes : what is still to be trained
    memory : bytes a pack may use
    workers : packs are not made larger than leaves work for each of them
    largest : most members of a pack (the throughput gained levels off)
    device, native : cpu or cuda, of which the memory is; see `accounting.pack_bytes`
    """
    groups: dict[tuple[int, str], list[Member]] = defaultdict(list)
    for level, member in _members(nodes):
        groups[level, member.recipe.shape].append(member)
    shapes_at: dict[int, int] = defaultdict(int)
    for level, _ in groups:
        shapes_at[level] += 1
    packs = []
    for (level, _), members in groups.items():
        members.sort(key=lambda m: (-m.tokens, m.nodes[0].key))
        spread = math.ceil(len(members) / math.ceil(workers / shapes_at[level]))
        fitting = _fitting(members[0].recipe, memory, any(m.averaged for m in members), device, native)
        size = max(1, min(largest, spread, fitting))
        size = math.ceil(len(members) / math.ceil(len(members) / size))
        packs += [(level, Pack(tuple(members[i : i + size]))) for i in range(0, len(members), size)]
    longest: dict[Key, float] = defaultdict(float)  # state -> the longest way of training that starts there
    ways = {}
    for _, p in sorted(packs, key=lambda item: -item[0]):  # what waits before what it waits for
        ways[p.id] = work(p) + max(longest[n.key] for m in p.members for n in m.nodes)
        for key in p.needs:
            longest[key] = max(longest[key], ways[p.id])
    packs.sort(key=lambda item: (-ways[item[1].id], item[0], item[1].id))
    return [p for _, p in packs]


def work(pack: Pack) -> float:
    """Training FLOPs of a pack."""
    return sum(m.tokens * accounting.flops_per_token(m.recipe.model, m.recipe.vocab) for m in pack.members)


def _members(nodes: dict[Key, Node]) -> list[tuple[int, Member]]:
    """Ways through the nodes with their level: how many packs must come before."""
    children: dict[Key | None, list[Node]] = defaultdict(list)
    for node in nodes.values():
        waits = node.parent in nodes and node.parent != node.key  # a node of its own parent needs an evaluation only
        children[node.parent if waits else None].append(node)
    found: list[tuple[int, Member]] = []
    waiting = [(0, node) for node in children[None]]
    while waiting:
        level, node = waiting.pop()
        way = [node]
        while after := children.get(way[-1].key):
            trunk = [c for c in after if c.open] or (after if len(after) == 1 else [])
            waiting += [(level + 1, c) for c in after if c not in trunk[:1]]
            if not trunk:
                break
            way.append(trunk[0])
        found.append((level, Member(tuple(way))))
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
