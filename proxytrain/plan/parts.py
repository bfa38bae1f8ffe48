"""What of a frozen plan is left to do. Read off the store; nothing else remembers it.

A pack is done when all its segments are published, with the states from which packs that are not done start. One that
failed twice, or did not fit into memory, counts as its two halves from then on, and so on down to single members; a
member that fails twice alone has failed, and what starts from it waits until it is retried, while its neighbours go
on. Every worker derives the same parts from the same files, so nobody writes the plan again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from proxytrain.errors import RequestError
from proxytrain.files.documents import Document, read_document, write_document
from proxytrain.plan.freeze import Plan
from proxytrain.plan.memory import too_large
from proxytrain.plan.pack import Member, Pack
from proxytrain.plan.share import Segment
from proxytrain.store.documents import Key
from proxytrain.store.store import Store

FAILURES = 2  # of a pack before it is split, of a single member before it has failed


class Failure(Document, frozen=True, kw_only=True):
    """A failed attempt at a pack: `failed-N.json`."""

    host: str = ""
    pid: int = 0
    attempt: str = ""
    traceback: str = "unknown"
    log: str | None = None  # the file; not written

    @property
    def why(self) -> str:
        """Return the last line of the traceback."""
        return (self.traceback.strip().splitlines() or ["unknown"])[-1]


NOT_PLANNED = Failure(
    traceback="it starts from a state that is gone, and that this plan does not make: run the sweep again"
)


@dataclass(frozen=True)
class Part:
    """A pack, or what is left of one that was split."""

    pack: Pack
    whole: tuple[str, ...] = ()  # ids of the packs that it was split from, the plan's own last
    wanted: frozenset[Key] = frozenset()  # states that others start from

    @property
    def names(self) -> tuple[str, ...]:
        """Its folder's name, and those in which earlier attempts at the same members may have left checkpoints."""
        return self.pack.id, *self.whole

    def of(self, members: tuple[Member, ...]) -> Part:
        return Part(Pack(members), self.names, self.wanted)


def folders(plan: Plan, store: Store) -> Path:
    """Where the packs of a plan have their claims, attempts and failures."""
    return store.sweep(plan.name) / "packs"


def unfinished(plan: Plan, store: Store, done: set[str] | None = None) -> list[Part]:
    """Parts that are still to be trained and can be: not failed, and waiting for nothing that will never come.

    `done` keeps the ids of packs that were seen finished; they are not looked at again.
    """
    return [part for part, state in parts(plan, store, set() if done is None else done) if state == "open"]


def failures(plan: Plan, store: Store, done: set[str] | None = None) -> Iterator[tuple[Segment, Failure]]:
    """Yield segments that will not come, with the record of the failure: of failed members, and all after them."""
    packs = folders(plan, store)
    lost: dict[Key | None, Failure] = {}
    for part, state in parts(plan, store, set() if done is None else done):
        if state == "open":
            continue
        for member in part.pack.members:
            why = failure(packs / part.pack.id) if state == "failed" else lost.get(member.parent, NOT_PLANNED)
            for segment in member.segments:
                if not complete(segment, store):
                    lost[segment.key] = why
                    yield segment, why


def retry(plan: Plan, store: Store) -> int:
    """Forget the failures of members that failed alone, so that workers try them again; how many there were."""
    failed = [part for part, state in parts(plan, store, set()) if state == "failed"]
    for part in failed:
        for number in range(FAILURES, 0, -1):
            (folders(plan, store) / part.pack.id / f"failed-{number}.json").unlink(missing_ok=True)
    return len(failed)


def parts(plan: Plan, store: Store, done: set[str]) -> Iterator[tuple[Part, Literal["open", "failed", "blocked"]]]:
    """The parts of all packs that are not done: what can be trained, what failed alone, what waits for such.

    `done` keeps the ids of packs that were seen finished, as in `unfinished`.
    """
    packs = folders(plan, store)
    wholes: list[Part] = []
    wanted: set[Key] = set()
    for pack in reversed(plan.packs):
        mine = frozenset(wanted)
        if pack.id in done:
            continue
        if finished(pack, store, mine):
            done.add(pack.id)
            continue
        wholes.append(Part(pack, wanted=mine))
        wanted |= pack.needs
    coming: set[Key] = set()
    for whole in reversed(wholes):
        waiting = [whole]
        while waiting:
            part = waiting.pop()
            members = part.pack.members
            able = [m.parent is None or m.parent in coming or ready(m.parent, store) for m in members]
            half = (len(members) + 1) // 2
            if not all(able):
                yield part.of(tuple(m for m, ok in zip(members, able) if not ok)), "blocked"
                if any(able):
                    waiting.append(part.of(tuple(m for m, ok in zip(members, able) if ok)))
            elif not (failed_twice(packs / part.pack.id) or too_large(packs / part.pack.id)):
                if not (part.whole and finished(part.pack, store, part.wanted)):
                    coming.update(s.key for m in members for s in m.segments)
                    yield part, "open"
            elif len(members) > 1:
                waiting += [part.of(members[half:]), part.of(members[:half])]
            else:
                yield part, "failed"


def finished(pack: Pack, store: Store, wanted: Collection[Key] = ()) -> bool:
    """Whether all that a pack trains is published, with the states among those `wanted`."""
    segments = [s for m in reversed(pack.members) for s in reversed(m.segments)]
    return all(complete(s, store) and (s.key not in wanted or ready(s.key, store)) for s in segments)


def ready(key: Key, store: Store) -> bool:
    """Whether what starts from here can start: the state is kept, or it is known to have diverged."""
    return store.published(key) and (store.has_state(key) or store.segment_status(key) == "diverged")


def complete(segment: Segment, store: Store) -> bool:
    """Return whether a segment is published, and the run that ends there has its result."""
    return store.published(segment.key) and (segment.run_id is None or store.has_result(segment.run_id))


def failed_twice(folder: Path) -> bool:
    return (folder / f"failed-{FAILURES}.json").exists()


def failure(folder: Path) -> Failure:
    """Return the last failure on record of a pack that failed twice."""
    *_, last = [Failure(), *failure_records(folder)]
    return last


def failure_records(folder: Path) -> Iterator[Failure]:
    """Yield the failures on record for a pack, the first first."""
    for number in range(1, FAILURES + 1):
        path = folder / f"failed-{number}.json"
        with suppress(RequestError):
            if found := read_document(path, Failure, "delete it"):
                yield replace(found, log=str(path))


def record_failure(folder: Path, failed: Failure) -> int:
    """Write down that an attempt failed; return the number of failures so far."""
    number = 1 + sum((folder / f"failed-{n}.json").exists() for n in range(1, FAILURES))
    write_document(folder / f"failed-{number}.json", failed)
    return number
