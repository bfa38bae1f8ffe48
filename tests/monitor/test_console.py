"""What a person sees meanwhile: on a terminal, in a file, from another machine; and what Ctrl-C leaves behind."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from support import ENDLESS, STDLIB, TINY, TINY_TEXT, ending_with_us, planned, proxytrain, start

from proxytrain.monitor.live import frame
from proxytrain.monitor.progress import AtWork, PackReport
from proxytrain.monitor.text import duration, flops
from proxytrain.monitor.watch import Watch
from proxytrain.plan import cost
from proxytrain.plan.claims import Holder

LONG = [*TINY_TEXT, *TINY, "sweep.name=s", *ENDLESS]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """The command on a terminal of its own, as a person has it."""

    def __init__(self, *arguments: str, cwd: Path, columns: int = 80, lines: int = 24):
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "proxytrain", *arguments],
            cwd=cwd,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**environment, "TERM": "xterm-256color"},
            preexec_fn=ending_with_us(self._own),
        )
        self.raw = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _own(self) -> None:
        os.setsid()
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def _read(self) -> None:
        while piece := os.read(self.master, 65536):
            self.raw += piece.decode(errors="replace")

    @property
    def text(self) -> str:
        return ESCAPE.sub("", self.raw)

    def wait_for(self, said: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while said not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < end, self.text
            time.sleep(0.05)

    def interrupt(self) -> int:
        """Ctrl-C, as the keyboard sends it; the exit code."""
        os.write(self.master, b"\x03")
        code = self.process.wait(120)
        time.sleep(0.2)
        return code

    def is_sane(self) -> bool:
        """Whether the cursor is back, and the line discipline is as it was."""
        shown, hidden = self.raw.rfind("\x1b[?25h"), self.raw.rfind("\x1b[?25l")
        return shown >= hidden and termios.tcgetattr(self.slave) == self.before


@pytest.fixture
def here(tmp_path: Path, corpora: Path) -> Path:
    """A folder with an empty store."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    return tmp_path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    n, d = np.meshgrid(np.geomspace(1e7, 1e9, 12), np.geomspace(1e9, 1e11, 12))
    loss = (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * np.exp(0.003 * np.random.default_rng(0).standard_normal(n.shape))
    rows = zip(n.ravel(), d.ravel(), loss.ravel())
    (tmp_path / "l.csv").write_text("params,tokens,loss\n" + "\n".join(f"{a},{b},{c}" for a, b, c in rows))
    return tmp_path


def until(condition: Callable[[], object], process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("columns", [80, 140])
def test_training_is_shown_live_and_an_interrupt_leaves_the_terminal_as_it_was(here, columns):
    seen = Terminal("sweep", *LONG, cwd=here, columns=columns)
    seen.wait_for("of peak")
    assert "losses now" in seen.text
    assert "left, until" in seen.text
    assert seen.interrupt() == 130
    assert seen.is_sane()
    assert "runs  0 done · 2 running · 0 waiting" in seen.text
    assert "saving; interrupt again to leave at once" in seen.text
    assert "the same command goes on" in seen.text
    assert "Traceback" not in seen.text
    frames = [line for line in re.split(r"[\r\n]+", seen.text) if line.startswith(("s ━", "runs ", "speed", "time "))]
    assert max(map(len, frames)) <= columns


def test_fits_show_how_far_they_are_and_can_be_interrupted(table):
    seen = Terminal("fit", "table=l.csv", cwd=table)
    seen.wait_for("backtest on")
    assert seen.interrupt() == 130
    assert seen.is_sane()
    assert "Traceback" not in seen.text
    assert [p.name for p in table.iterdir()] == ["l.csv"]


def test_a_sweep_is_followed_from_its_store(here):
    with open(here / "err.txt", "w") as err:
        process = start("sweep", *LONG, cwd=here, stderr=err)
    until(lambda: list(here.glob("runs/sweeps/s/packs/*/attempt-*/progress.json")), process)
    content = json.loads(proxytrain("status", "--json", "sweep.name=s", cwd=here).stdout)["s"]
    assert content["counts"] == {"running": 2}
    now = content["progress"]
    assert 0 < now["tokens"] < now["tokens_to_train"] == 8e9
    assert now["packs_at_work"] == 1
    assert now["flops_per_second"] > now["tokens_per_second"] > 0
    assert now["seconds_left"] > 10

    watch = start("status", "--watch", cwd=here, stdout=subprocess.PIPE)
    assert re.match(r"\d\d:\d\d:\d\d s: \d+%, .* 0 done, 2 running, .* left, until", watch.stdout.readline())
    watch.send_signal(signal.SIGINT)
    assert watch.wait(60) == 130

    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    assert "2 waiting" in (here / "err.txt").read_text()
    assert json.loads(proxytrain("status", "--json", cwd=here).stdout)["s"]["progress"]["seconds_left"] is None


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
def test_a_store_that_can_only_be_read_is_followed_too(here):
    process = start("sweep", "--quiet", *LONG, cwd=here, stderr=subprocess.DEVNULL)
    until(lambda: list(here.glob("runs/sweeps/s/packs/*/attempt-*/progress.json")), process)
    status = (
        f"exec {sys.executable} -m proxytrain status --json"  # of pids that mean nothing here, as on another machine
    )
    script = f"mount --bind runs runs && mount -o remount,ro,bind runs && cd {here} && {status}"
    done = subprocess.run(["unshare", "-rmpf", "sh", "-c", script], cwd=here, capture_output=True, text=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert json.loads(done.stdout)["s"]["counts"] == {"running": 2}, done.stderr


def test_preparing_a_corpus_can_be_interrupted(tmp_path):
    command = ["plan", *TINY, "data=files", f"data.files=[{STDLIB}/**/*.py]", "data.tokenizer=bytes"]
    process = start(*command, cwd=tmp_path, stderr=subprocess.PIPE)
    until(lambda: list(tmp_path.glob("runs/corpora/tmp/*")), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.read() == "interrupted; the same command goes on\n"
    assert not list(tmp_path.glob("runs/corpora/tmp/*"))
    assert not list(tmp_path.glob("runs/sweeps/*"))


def test_time_left_is_that_of_the_work_left_not_of_the_tokens(ask):
    asked = ask("sweep.grids=[{model.width:[16,128],tokens:65536}]")
    made = planned(asked)
    wide, narrow = sorted(made.packs, key=lambda p: -p.members[0].recipe.model.width)
    whole = cost.seconds(wide, "cpu") + cost.seconds(narrow, "cpu")
    assert cost.elapsed([wide, narrow], 1, "cpu") == pytest.approx(whole)
    halved = cost.elapsed([wide, narrow], 1, "cpu", {wide.id: 0.5, narrow.id: 1.0})
    assert halved == pytest.approx(whole - cost.seconds(wide, "cpu") / 2)
    assert cost.seconds(wide, "cpu") > 4 * cost.seconds(narrow, "cpu")
    look = Watch(made, asked.store).look(workers=1)
    assert (look.tokens, look.share, look.seconds_left) == (0, 0.0, pytest.approx(whole))
    assert look.counts == {"waiting": 2}


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (140, 40), (80, 10), (40, 12)])
@pytest.mark.parametrize("count", [0, 3, 40])
def test_a_frame_fits_its_terminal(ask, columns, lines, count):
    asked = ask(f"sweep.grids=[{{tokens:8192,init_seed:{[*range(40)]}}}]")
    made = planned(asked, largest=1)
    report = PackReport(tokens=4096, begun=0, total=8192, tokens_per_second=1e4, members=1, loss=[2.5], peak_flops=1e11)
    at_work = [AtWork(p, Holder(host=f"node{i}", pid=i), 2, report) for i, p in enumerate(made.packs[:count])]
    events = [(0.0, f"failed RuntimeError: {'x' * 300}")] * 9
    seen = replace(Watch(made, asked.store).look(workers=2), at_work=at_work, events=events)
    console = Console(width=columns, height=lines, force_terminal=True, file=io.StringIO())
    drawn = console.render_lines(frame(seen, 0.0, lines), pad=False)
    assert len(drawn) <= lines
    assert max(sum(piece.cell_length for piece in line) for line in drawn) <= columns
    text = "\n".join("".join(piece.text for piece in line) for line in drawn)
    assert "40 waiting" in text
    assert count < 40 or "more packs" in text


def test_numbers_are_said_as_people_say_them():
    assert [duration(s) for s in (5, 119, 600, 7200, 4e5, 1e9)] == [
        "5 s",
        "119 s",
        "10 min",
        "2.0 h",
        "111.1 h",
        "11,574 days",
    ]
    assert [flops(x) + "FLOP/s" for x in (12, 2.14e10)] == ["12 FLOP/s", "21.4 GFLOP/s"]
