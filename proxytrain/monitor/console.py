"""What a person sees: a live view on a terminal, plain lines at sane intervals elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from proxytrain.monitor.text import progress_line

if TYPE_CHECKING:
    from rich.live import Live

    from proxytrain.monitor.progress import PlanProgress

MOMENT = 1.0  # seconds; work that takes no longer shows nothing
LIVE_SECONDS, LOOKING = 1.0, 20  # between two frames: seconds, and times as long as looking at the store took
TOLD = 8  # failures that are printed one by one into a file, between two lines

Tell = Callable[["float | None", str], None]  # share done, if known, and what is being done


class Pace:
    """When the next line is due in a file: after 20 s, then ever more rarely, and after 5 minutes at last."""

    def __init__(self) -> None:
        self.began = self.last = time.monotonic()

    def due(self) -> bool:
        now = time.monotonic()
        if now - self.last < min(300.0, max(20.0, (now - self.began) / 20)):
            return False
        self.last = now
        return True


class Console:
    """Standard error for progress, standard output for answers (of which `status --watch` is one)."""

    def __init__(self, quiet: bool = False, stream: Literal["stderr", "stdout"] = "stderr"):
        self.quiet, self.stream = quiet, stream

    @property
    def terminal(self) -> Any:
        """A rich console on the stream; None where it is no terminal that can be drawn on."""
        if self.quiet or not getattr(sys, self.stream).isatty():
            return None
        from rich.console import Console as Rich

        console = Rich(stderr=self.stream == "stderr", highlight=False)
        return None if console.is_dumb_terminal else console

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=getattr(sys, self.stream), flush=True)

    @contextmanager
    def at_work(self, text: str) -> Iterator[Tell]:
        """A function that shows how far a piece of work is: a bar, once it has taken longer than a moment."""
        terminal = self.terminal
        if terminal is None:
            pace = Pace()

            def line(share: float | None, what: str) -> None:
                if not self.quiet and pace.due():
                    self.say(f"{text}: {what}" + (f" ({share:.0%})" if share is not None else ""))

            yield line
            return
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bars

        columns = SpinnerColumn(), TextColumn(text), BarColumn(20), TextColumn("[dim]{task.fields[what]}")
        bars = Bars(*columns, console=terminal, transient=True, redirect_stdout=False)
        task = bars.add_task(text, total=None, what="")
        timer = threading.Timer(MOMENT, bars.start)
        timer.daemon = True
        timer.start()

        def show(share: float | None, what: str) -> None:
            bars.update(task, total=1.0 if share is not None else None, completed=share or 0.0, what=what)

        try:
            yield show
        finally:
            timer.cancel()
            timer.join()
            bars.stop()

    @contextmanager
    def training(self) -> Iterator[PlanView]:
        """A view of a plan while it is trained."""
        terminal = self.terminal
        if terminal is None:
            yield PlanView(self, None)
            return
        from rich.live import Live

        with Live(console=terminal, auto_refresh=False, redirect_stdout=False, vertical_overflow="crop") as live:
            yield PlanView(self, live)


class PlanView:
    """Shows a plan's progress whenever that is due."""

    def __init__(self, console: Console, live: Live | None):
        self.console, self.live = console, live
        self.pace, self.began = Pace(), time.time()
        self.asked = self.next = time.monotonic()
        self.told = self.began  # until when events were told

    def due(self) -> bool:
        """Whether `show` would show something new; looking at the store costs, so ask this first."""
        if self.console.quiet:
            return False
        self.asked = time.monotonic()
        return self.pace.due() if self.live is None else self.asked >= self.next

    def show(self, progress: PlanProgress, final: bool = False) -> None:
        if self.live is not None:
            from proxytrain.monitor.live import frame

            self.live.update(frame(progress, self.began, self.live.console.height, final), refresh=True)
            now = time.monotonic()
            self.next = now + max(LIVE_SECONDS, LOOKING * (now - self.asked))
            return
        news = [(at, text) for at, text in progress.events if at > self.told and not text.startswith("done")]
        self.told = max([self.told, *(at for at, _ in progress.events)])
        for at, text in news[-TOLD:]:
            self.console.say(f"{clock(at)} {text}")
        self.console.say(f"{clock(time.time())} {progress.plan.name}: {progress_line(progress)}")


def clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
