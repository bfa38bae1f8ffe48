"""The mirror's process beside the workers: started by whoever trains, told the end by the end of its standard input."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import asdict

from proxytrain.config.overrides import quoted
from proxytrain.config.schema import Track, Wandb
from proxytrain.files.atomic import open_log
from proxytrain.monitor.console import Console
from proxytrain.store.store import Store
from proxytrain.track.client import mode
from proxytrain.track.mirror import Mirror

SHOW_SECONDS = 30.0


class Beside:
    """A context manager: a mirror of the sweep while the block runs, and until all is sent when it ends.

    Whatever happens to the mirror, the block and its outcome do not notice. An interrupted block does not wait for it,
    another `patience` seconds at most.

    Raises
    ------
    RequestError
        On entering, if the mirror was asked to be online, and wandb knows no key.
    """

    def __init__(self, track: Track, store: Store, name: str, console: Console, patience: float = float("inf")):
        self.track, self.store, self.name, self.console, self.patience = track, store, name, console, patience
        self.folder = store.sweep(name)
        self.mirror: Mirror | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.interrupted = False  # where an interrupt is no exception

    def __enter__(self) -> Beside:
        how = mode(self.track) if isinstance(self.track, Wandb) else "disabled"
        if isinstance(self.track, Wandb) and how != "disabled":
            self.mirror = Mirror(self.store, self.name, self.track, how == "online", self.console.say)
            self._unless_it_fails(self._begin, self.mirror)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self.interrupted or kind is KeyboardInterrupt:
            if self.process:
                self.process.terminate()
            return
        if self.mirror:
            self._unless_it_fails(self._end, self.mirror)

    def _begin(self, mirror: Mirror) -> None:
        if mirror.waits():
            self._start(mirror)

    def _end(self, mirror: Mirror) -> None:
        if self.process is None and mirror.behind():  # a new fit, a target that was verified
            self._start(mirror)
        if self.process is None:
            return
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self._wait(mirror, self.process)
        except (KeyboardInterrupt, TimeoutError):
            self.process.terminate()
            self.console.say(f"W&B: left behind; {self._again}")

    def _unless_it_fails(self, what: Callable[[Mirror], None], mirror: Mirror) -> None:
        try:
            what(mirror)
        except Exception as error:  # a full disk, no process to be had: never the block's trouble
            self.console.say(f"W&B: {error}; {self._again}")

    def _start(self, mirror: Mirror) -> None:
        how = "online" if mirror.online else "offline"
        command = [sys.executable, "-m", "proxytrain", "track", "sync", "--beside", f"sweep.name={self.name}"]
        command += [f"store={quoted(str(self.store.root.resolve()))}", *overrides(self.track), f"track.mode={how}"]
        with open_log(self.folder / "mirror.log") as log:
            self.logged = log.tell()
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        self.console.say(f"W&B: {how}, " + (f"written to {self.folder}/wandb" if how == "offline" else self.name))

    def _wait(self, mirror: Mirror, process: subprocess.Popen[bytes]) -> None:
        began = shown = time.monotonic()
        while process.poll() is None:
            time.sleep(0.1)
            if time.monotonic() - began > self.patience:
                raise TimeoutError
            if time.monotonic() - shown > SHOW_SECONDS:
                shown = time.monotonic()
                self.console.say(f"W&B: {mirror.behind()} still to be sent (Ctrl-C leaves; {self._again})")
        if process.returncode:
            with open(self.folder / "mirror.log", "rb") as log:
                log.seek(self.logged)
                said = log.read().decode(errors="replace").strip().rpartition("\n")[2]
            self.console.say(f"W&B: {said}; {self._again}")

    @property
    def _again(self) -> str:
        where = "" if str(self.store.root) == "runs" else f" store={self.store.root}"
        return f"`proxytrain track sync{where} sweep.name={self.name}` sends the rest at any time"


def check(track: Track) -> None:
    """Raises a RequestError where a mirror was asked to be online, and wandb knows no key here."""
    if isinstance(track, Wandb):
        mode(track)


def overrides(track: Track) -> list[str]:
    """What says the same about tracking on a command line."""
    if not isinstance(track, Wandb):
        return []
    given = {k: v for k, v in asdict(track).items() if v is not None}
    return [f"track={track.name}", *(f"track.{k}={quoted(v) if isinstance(v, str) else v}" for k, v in given.items())]
