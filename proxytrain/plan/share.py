"""Sharing: runs whose phases begin alike become a forest of segments, which are trained once.

A segment ends where a run ends, where paths part, and at the end of every trunk (the last token before a closed phase),
so that a longer length added later starts from there. It begins where the segment before it ends. Its name,
(lineage, end), does not depend on how the path to its end was cut.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from proxytrain.config.recipe import Recipe
from proxytrain.config.schedule import Phase, cut
from proxytrain.plan.runs import Run, lineage
from proxytrain.store.documents import Key


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of training whose end is kept: what is trained, from which segment on, and which run ends there."""

    recipe: Recipe
    lr: float
    phases: tuple[Phase, ...]
    lineage: str
    parent: Key | None  # the segment before it; None: from the initial weights
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
        """Return whether training can go on from its end."""
        return self.phases[-1].open

    @property
    def averaged(self) -> bool:
        """Return whether the mean of the weights along the segment is kept."""
        return self.phases[-1].kind == "average"


def forest(runs: Iterable[Run], stored: Iterable[Key] = ()) -> dict[Key, Segment]:
    """Return the segments of a set of runs by key, parents before children.

    Parameters
    ----------
    runs : any order, repeats allowed
    stored : keys of states that exist already; they serve as parents, but do not become segments by themselves
    """
    runs = list(dict.fromkeys(runs))
    paths = {run: _path(run) for run in runs}
    following: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    closes: set[Key] = set()
    ends = {paths[run][-1][:2]: run for run in runs}
    for run in runs:
        for (name, end, _), after in zip(paths[run], [*paths[run][1:], None]):
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

    segments: dict[Key, Segment] = {}
    for run in sorted(runs, key=lambda r: (r.tokens, r.id)):
        path = paths[run]
        for i, (name, end, _) in enumerate(path):
            for stop in kept[name]:
                if stop <= end and (name, stop) not in segments:
                    segments[name, stop] = Segment(
                        recipe=run.recipe,
                        lr=run.lr,
                        phases=cut(run.phases[: i + 1], stop),
                        lineage=name,
                        parent=_before(path[: i + 1], stop, places),
                        run_id=ends[name, stop].id if (name, stop) in ends else None,
                    )
    return dict(sorted(segments.items(), key=lambda item: (item[1].end, item[0])))


def lineages(runs: Iterable[Run]) -> set[str]:
    """Return all lineages that these runs pass through."""
    return {name for run in runs for name, _, _ in _path(run)}


def _path(run: Run) -> list[tuple[str, int, Phase]]:
    """Return (lineage, end, phase) of each phase of a run."""
    parts = [run.phases[: i + 1] for i in range(len(run.phases))]
    return [(lineage(run.recipe, run.lr, part), part[-1].end, part[-1]) for part in parts]


def _before(path: list[tuple[str, int, Phase]], end: int, places: dict[str, set[int]]) -> Key | None:
    """Return the last place before `end` on a path."""
    for i, (name, stop, _) in reversed(list(enumerate(path))):
        limit = end - 1 if i == len(path) - 1 else stop
        earlier = [p for p in places.get(name, ()) if p <= limit]
        if earlier:
            return name, max(earlier)
    return None
