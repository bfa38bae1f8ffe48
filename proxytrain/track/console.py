"""What a person sees: one live line on a terminal, plain lines at sane intervals elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from proxytrain.plan.freeze import Plan

PLAIN_SECONDS = 20.0


class Console:
    """Standard error for progress, standard output for answers."""

    def __init__(self, quiet: bool = False):
        self.quiet, self.terminal = quiet, sys.stderr.isatty()

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def corpus(self) -> Callable[[int, int | None, str], None]:
        """A callback that shows how far the corpus is."""
        last = time.monotonic()

        def show(done: int, total: int | None, what: str) -> None:
            nonlocal last
            if time.monotonic() - last > (0.2 if self.terminal else 5.0):
                last = time.monotonic()
                of = f" of {total / 1e6:.0f}" if total else ""
                self._line(f"corpus: {what}, {done / 1e6:.0f}{of} MB")

        return show

    @contextmanager
    def training(self, plan: Plan) -> Iterator[Callable[..., None]]:
        """A function of (tokens, speed, reports) and packs settled that shows them as they come."""
        total = sum(m.tokens for p in plan.packs for m in p.members)
        began = last = time.monotonic()
        first: int | None = None

        def show(state: tuple[int, float, list[dict]], packs: int) -> None:
            nonlocal last, first
            tokens, speed, reports = state
            first = tokens if first is None else first
            now = time.monotonic()
            if now - last < (0.25 if self.terminal else PLAIN_SECONDS):
                return
            last = now
            left = _left(tokens - first, total - tokens, now - began, plan.costs["seconds"])
            at = "; ".join(
                f"width {r['width']} x {r['members']} at {sum(r['loss']) / len(r['loss']):.3f}" for r in reports
            )
            self._line(
                f"training: {tokens / 1e6:.1f} of {total / 1e6:.1f}M tokens ({tokens / total:.0%}), "
                f"{packs} of {len(plan.packs)} packs, {speed / 1e3:.0f}k tokens/s, {left} left"
                + (f"; {at}" if at else "")
            )

        yield show
        if self.terminal and not self.quiet:
            print(file=sys.stderr)

    def _line(self, text: str) -> None:
        if self.quiet:
            return
        if self.terminal:
            import shutil

            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[2K{text[:width]}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


def _left(done: int, rest: int, seconds: float, estimate: float) -> str:
    """Time left: from the speed so far once there is some, else from the plan's estimate."""
    if rest == 0:
        return "0 s"
    guess = seconds * rest / done if done and seconds > 20 else max(0.0, estimate - seconds)
    return f"{guess:.0f} s" if guess < 100 else f"{guess / 60:.0f} min"
