"""Runs of several sizes at one ratio of tokens to parameters: whether their normalised curves are one (2507.02119)."""

from __future__ import annotations

from contextlib import suppress

from proxytrain.analysis.collapse import LEAST_SIZES, Collapse, collapse
from proxytrain.errors import Refusal, RequestError
from proxytrain.store.documents import RunRecord
from proxytrain.store.store import Store
from proxytrain.sweep import results as outcomes

SAME = 1.02  # tokens per parameter: lengths are whole updates


def collapsed(records: list[RunRecord], store: Store) -> Collapse | None:
    """Of the finished runs that differ in size and seed only, each as long as its size asks; None where there are not
    three sizes of such, or they cannot be compared. Of several sets the one with most sizes, then runs, then the first.
    """
    sets: dict[tuple[object, ...], list[tuple[float, RunRecord]]] = {}
    for r in records:
        setting = tuple((k, str(v)) for k, v in r.settings.items() if k not in outcomes.OWN_AXES)
        sets.setdefault(setting, []).append((r.tokens / r.params.non_embedding, r))
    best: list[RunRecord] = []
    for runs in sets.values():
        for least in sorted({ratio for ratio, _ in runs}):
            found = [r for ratio, r in runs if least <= ratio <= SAME * least]
            if _sizes(found) >= LEAST_SIZES:  # else nothing is read
                found = [r for r in found if store.done(r.id)]
                best = max(best, found, key=lambda rs: (_sizes(rs), len(rs)))
    if _sizes(best) < LEAST_SIZES:
        return None
    with suppress(Refusal, RequestError):  # a curve that cannot be read is named elsewhere
        return collapse(outcomes.curves(store, best))
    return None


def _sizes(records: list[RunRecord]) -> int:
    return len({r.params.non_embedding for r in records})
