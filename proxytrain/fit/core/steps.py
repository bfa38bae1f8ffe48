"""Telling who waits how far a fit is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]  # share of the steps that are done, and what comes next


def steps(progress: Progress | None, total: int) -> Callable[[str], None]:
    """A function to be called before each of `total` steps with what it is."""
    done = 0

    def tell(what: str) -> None:
        nonlocal done
        if progress:
            progress(min(done / total, 1.0), what)
        done += 1

    return tell
