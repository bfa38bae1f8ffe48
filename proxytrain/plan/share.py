"""Sharing: runs whose phases begin alike become a forest of nodes, states that training passes and that must be kept.

A node stands where a run ends, where paths part, and at the end of every trunk (the last token before a closed phase),
so that a longer length added later starts from there. Its name, (lineage, end), does not depend on how the way to it
was cut. What lies between a node and the one before it is a segment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from proxytrain.config.schedule import Phase, cut
from proxytrain.plan.runs import Recipe, Run, lineage
from proxytrain.store.store import Key


@dataclass(frozen=True)
class Node:
    """A state of training that is kept: where it lies, which run ends there, and where it is reached from."""

    recipe: Recipe
    lr: float
    phases: tuple[Phase, ...]
    lineage: str
    parent: Key | None  # the node before it; None: from the initial weights
    run_id: str | None  # the run that ends here

    @property
    def end(self) -> int:
        return self.phases[-1].end

    @property
    def start(self) -> int:
        return self.parent[1] if self.parent else 0

    @property
    def key(self) -> Key:
        return self.lineage, self.end

    @property
    def open(self) -> bool:
        """Whether training can go on from here."""
        return self.phases[-1].open

    @property
    def averaged(self) -> bool:
        """Whether the mean of the weights on the way here is kept."""
        return self.phases[-1].kind == "average"


def forest(runs: Iterable[Run], stored: Iterable[Key] = ()) -> dict[Key, Node]:
    """Nodes of a set of runs by key, parents before children.

    Parameters
    ----------
    runs : any order, repeats allowed
    stored : keys of states that exist already; they serve as parents, but do not become nodes by themselves
    """
    runs = list(dict.fromkeys(runs))
    ways = {run: _way(run) for run in runs}
    following: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    closes: set[Key] = set()
    ends = {ways[run][-1][:2]: run for run in runs}
    for run in runs:
        for (name, end, _), after in zip(ways[run], [*ways[run][1:], None]):
            following[name][end].add(after[0] if after else "stop")
            if after and not after[2].open:
                closes.add((name, end))

    kept: dict[str, list[int]] = {}
    for name, stops in following.items():
        last = max(stops)
        kept[name] = sorted(
            e for e, after in stops.items() if (name, e) in ends or (name, e) in closes or len(after) + (e < last) > 1
        )
    places: dict[str, set[int]] = defaultdict(set)
    for name, positions in kept.items():
        places[name].update(positions)
    for name, end in stored:
        places[name].add(end)

    nodes: dict[Key, Node] = {}
    for run in sorted(runs, key=lambda r: (r.tokens, r.id)):
        way = ways[run]
        for i, (name, end, _) in enumerate(way):
            for stop in kept[name]:
                if stop <= end and (name, stop) not in nodes:
                    nodes[name, stop] = Node(
                        recipe=run.recipe,
                        lr=run.lr,
                        phases=cut(run.phases[: i + 1], stop),
                        lineage=name,
                        parent=_before(way[: i + 1], stop, places),
                        run_id=ends[name, stop].id if (name, stop) in ends else None,
                    )
    return dict(sorted(nodes.items(), key=lambda item: (item[1].end, item[0])))


def lineages(runs: Iterable[Run]) -> set[str]:
    """All lineages that these runs pass through."""
    return {name for run in runs for name, _, _ in _way(run)}


def _way(run: Run) -> list[tuple[str, int, Phase]]:
    """(lineage, end, phase) of each phase of a run."""
    parts = [run.phases[: i + 1] for i in range(len(run.phases))]
    return [(lineage(run.recipe, run.lr, part), part[-1].end, part[-1]) for part in parts]


def _before(way: list[tuple[str, int, Phase]], end: int, places: dict[str, set[int]]) -> Key | None:
    """The last place before `end` on a way."""
    for i, (name, stop, _) in reversed(list(enumerate(way))):
        limit = end - 1 if i == len(way) - 1 else stop
        earlier = [p for p in places.get(name, ()) if p <= limit]
        if earlier:
            return name, max(earlier)
    return None
