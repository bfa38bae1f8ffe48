"""A pack that runs out of memory is tried again with less: in smaller micro-batches, or as its two halves.

    packs/PACK/memory.json   {"micro_batches": n} or {"halves": true}

Micro-batches come first, since they cost little; in reference mode the halves, since they change no bit. Only a single
member that reads one sequence at a time has nothing smaller left.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

from proxytrain.errors import RequestError
from proxytrain.files.documents import Document, read_document, write_document
from proxytrain.plan import cost
from proxytrain.plan.pack import Pack
from proxytrain.types import Positive

WORDS = (  # of errors that have no class of their own
    "can't allocate memory",
    "out of memory",
    "not enough memory",
    "bad_alloc",
    "ALLOC_FAILED",
    "can't start new thread",
)


class _Less(Document, frozen=True, kw_only=True):
    """How a pack is tried next: `memory.json`."""

    halves: bool = False
    micro_batches: Positive | None = None


def out_of_memory(error: BaseException | None) -> bool:
    """Whether memory was short: the host's, or the device's."""
    if error is None:
        return False
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS):
        return True
    return out_of_memory(error.__cause__)


def relieve(pack: Pack, folder: Path, micro_batches: int, device: str, threads: int) -> str | None:
    """Write down how a pack is tried next, and say it; None where nothing smaller is left."""
    recipe, members = pack.members[0].recipe, len(pack.members)
    sequences = recipe.batch_tokens // recipe.model.context
    bits = cost.reference(recipe.precision, device, threads)
    if members > 1 and (bits or micro_batches >= sequences):
        write_document(folder / "memory.json", _Less(halves=True))
        return "its halves are trained one after the other"
    if micro_batches < sequences:
        parts = min(2 * micro_batches, sequences)
        write_document(folder / "memory.json", _Less(micro_batches=parts))
        return f"updates in {parts} parts from now on"
    return None


def too_large(folder: Path) -> bool:
    """Whether a pack did not fit, and counts as its halves."""
    return _record(folder).halves


def micro_batches(folder: Path) -> int | None:
    """Into how many parts updates must be split, where the plan's number was too few."""
    return _record(folder).micro_batches


def _record(folder: Path) -> _Less:
    with suppress(RequestError):
        return read_document(folder / "memory.json", _Less, "it is written again") or _Less()
    return _Less()
