"""What a person sees: a live bar on a terminal, plain lines at sane intervals elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from proxytrain.plan.freeze import Plan

PLAIN_SECONDS = 20.0


@dataclass(frozen=True)
class Progress:
    """How far a plan is."""

    tokens: int  # trained, of the plan's
    speed: float  # tokens a second, of all workers
    packs: int  # done
    under_way: list[dict[str, Any]]  # the latest reports of packs being trained


class Console:
    """Standard error for progress, standard output for answers."""

    def __init__(self, quiet: bool = False):
        self.quiet, self.terminal = quiet, sys.stderr.isatty()

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def corpus(self) -> Callable[[int, int | None, str], None]:
        """A callback that shows how far the corpus is, once it takes longer than a moment."""
        last = time.monotonic()

        def show(done: int, total: int | None, what: str) -> None:
            nonlocal last
            if time.monotonic() - last > (1.0 if self.terminal else 5.0):
                last = time.monotonic()
                of = f" of {total / 1e6:.0f}" if total else ""
                self.say(f"corpus: {what}, {done / 1e6:.0f}{of} MB")

        return show

    @contextmanager
    def training(self, plan: Plan) -> Iterator[Callable[[Progress], None]]:
        """A function that shows progress as it comes."""
        total = sum(m.tokens for p in plan.packs for m in p.members)
        began = time.monotonic()
        first: int | None = None

        def line(p: Progress) -> str:
            nonlocal first
            first = p.tokens if first is None else first
            left = _left(p.tokens - first, total - p.tokens, time.monotonic() - began, plan.costs["seconds"])
            text = f"{p.tokens / 1e6:.1f} of {total / 1e6:.1f}M tokens, {p.packs} of {len(plan.packs)} packs"
            text += f", {p.speed / 1e3:.0f}k tokens/s, {left} left"
            return text + "".join(f"; {_pack(report)}" for report in p.under_way)

        if self.quiet:
            yield lambda progress: None
        elif self.terminal:
            from rich.console import Console as Terminal
            from rich.progress import BarColumn
            from rich.progress import Progress as Bar

            with Bar(BarColumn(24), "{task.percentage:3.0f}% {task.description}", console=Terminal(stderr=True)) as bar:
                task = bar.add_task("starting", total=total)
                yield lambda progress: bar.update(task, completed=progress.tokens, description=line(progress))
        else:
            last = began

            def plain(progress: Progress) -> None:
                nonlocal last
                if time.monotonic() - last > PLAIN_SECONDS:
                    last = time.monotonic()
                    self.say(f"training: {line(progress)}")

            yield plain


def _pack(report: dict[str, Any]) -> str:
    return f"width {report['width']} x {report['members']} at {sum(report['loss']) / len(report['loss']):.3f}"


def _left(done: int, rest: int, seconds: float, estimate: float) -> str:
    """Time left: from the speed so far once there is some, else from the plan's estimate."""
    guess = seconds * rest / done if done and seconds > 20 else max(0.0, estimate - seconds)
    return f"{guess:.0f} s" if guess < 100 else f"{guess / 60:.0f} min"
