"""Faults, tried for real: 60 small runs under four workers that are killed, stopped and run out of disk meanwhile.

    python scripts/chaos.py [--kills 8] [--updates 150] [--seed 0] [--keep]

Two sweeps that overlap are trained undisturbed, then again in another store while, at random moments, workers get
SIGKILL, SIGTERM and SIGSTOP, the store's small disk fills up, and files are cut short. At the end every run must be
published once, its curve, loss and weights equal to the bit, no failure on record, no temporary file left, and
`proxytrain status --check` content. The disk is a tmpfs where one can be mounted (as root), so that it fills for real;
elsewhere a limit on the size of files stands in for it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.context import ForkProcess as Process
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

import proxytrain.train.loop  # noqa: F401 (imported once, for all workers)
from proxytrain.cli import main as cli
from proxytrain.store.curves import RunCurve
from proxytrain.store.store import Store

STDLIB = sysconfig.get_path("stdlib")
BASE = [
    f"data.files=[{STDLIB}/json/*.py,{STDLIB}/email/*.py,{STDLIB}/http/*.py]",
    *("data=files", "data.unit=line", "data.tokenizer=bytes", "data.val_fraction=0.1", "data.val_tokens=4096"),
    *("model.width=16", "model.head_size=8", "model.context=32", "parametrization.base_width=16", "batch_tokens=256"),
    *("warmup=2048", "train.device=cpu", "train.eval_every=8192", "train.eval_tokens=1024", "train.telemetry_every=7"),
]
SEEDS = {"a": "[0,1,2,3,4,5,6,7,8,9]", "b": "[5,6,7,8,9,10,11,12,13,14]"}  # 60 runs in all, 20 of them in both
STALE_SECONDS = 4.0
DISK_MEGABYTES = 256
FAULTS = {"SIGKILL": 60, "SIGTERM": 12, "SIGSTOP": 12, "disk full": 6, "file cut": 10}


class Trouble(Exception):
    """Something was lost, done twice or left behind."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=8, help="workers that get SIGKILL")
    parser.add_argument("--updates", type=int, default=150, help="of the shorter runs; the longer have twice as many")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0, help="between faults, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="leave the two stores where they are")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="chaos-"))
    began = time.monotonic()
    try:
        calm = home / "calm"
        calm.mkdir()
        for name in SEEDS:
            run("plan", name, calm, *overrides(name, calm, options))
            work = ["work", f"sweep.name={name}", f"store={calm}", "train.device=cpu"]
            pair = [start(work, home / f"calm-{name}-{i}.log") for i in range(2)]
            for worker in pair:
                worker.join()
            if any(worker.exitcode for worker in pair):
                raise Trouble(f"undisturbed workers failed: see {home}/calm-{name}-*.log")
        print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
        with small_disk(home / "disk", calm) as (store, disk):
            print(f"the disk that fills: {disk.what}", flush=True)
            for name in SEEDS:
                run("plan", name, store, *overrides(name, store, options))
            needed = tokens_needed(store)
            storm = Storm(home, store, disk, options)
            storm.blow()
            verify(store, calm, options)
            print(
                f"whole: {len(results(store))} runs, each published once and equal to the bit\n"
                f"survived: {', '.join(f'{n} {what}' for what, n in storm.faults.items())}\n"
                f"workers: {storm.started} started; {', '.join(f'{n} left with {c}' for c, n in storm.codes.items())}\n"
                f"updates trained: {storm.trained() // 256} of {needed // 256} needed (what both sweeps trained "
                f"at once counts twice; of the killed, as they last reported)\n"
                f"seconds: {time.monotonic() - began:.0f}"
            )
            if storm.faults["SIGKILL"] < options.kills:
                raise Trouble(f"all was trained after {storm.faults['SIGKILL']} kills; give more --updates")
    except Trouble as trouble:
        print(f"TROUBLE: {trouble}\n(seed {options.seed}; worker logs and stores: {home})", file=sys.stderr)
        return 1
    if not options.keep:
        shutil.rmtree(home)
    return 0


def overrides(name: str, store: Path, options: argparse.Namespace) -> list[str]:
    lengths = f"{options.updates * 256},{options.updates * 512}"
    grid = f"sweep.grids=[{{init_seed:{SEEDS[name]},tokens:[{lengths}],schedule:[wsd,cosine]}}]"
    return [*BASE, f"sweep.name={name}", grid, f"store={store}", "train.checkpoint_seconds=0.5"]


def run(verb: str, name: str, store: Path, *words: str) -> None:
    log = store.parent / f"{verb}-{name}.log"
    process = start([verb, *words], log)
    process.join()
    if process.exitcode:
        raise Trouble(f"{verb} of {name} ended with {process.exitcode}:\n{log.read_text()}")


def start(arguments: list[str], log: Path, limit: int | None = None) -> Process:
    """The command in a process of its own, forked off this one, which has imported torch already (it takes seconds)."""
    process = get_context("fork").Process(target=_command, args=(arguments, log, limit))
    process.start()
    return process


def _command(arguments: list[str], log: Path, limit: int | None) -> None:
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (for the life of the process)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    code = cli.main(arguments)
    sys.stdout.flush()
    sys.exit(code)


def signal_to(process: Process, number: int) -> None:
    """A signal, unless the process is gone and waited for."""
    if process.exitcode is None and process.pid:
        os.kill(process.pid, number)


class Disk:
    """A disk that can be filled up."""

    def __init__(self, mounted: bool, root: Path):
        self.mounted, self.filler = mounted, root / "filler"
        self.what = f"tmpfs of {DISK_MEGABYTES} MB" if mounted else "none can be mounted; files limited to 4 kB instead"

    def fill(self) -> None:
        with contextlib.suppress(OSError), open(self.filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        with contextlib.suppress(OSError), open(self.filler, "ab", buffering=0) as file:
            while True:
                file.write(bytes(512))

    def empty(self) -> None:
        self.filler.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, calm: Path) -> Iterator[tuple[Path, Disk]]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        store = folder / "store"
        store.mkdir()
        shutil.copytree(calm / "corpora", store / "corpora")
        yield store, Disk(mounted, folder)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Storm:
    """Workers, and what happens to them."""

    def __init__(self, home: Path, store: Path, disk: Disk, options: argparse.Namespace):
        self.home, self.store, self.disk, self.options = home, store, disk, options
        self.random = random.Random(options.seed)
        self.faults, self.codes = Counter[str](), Counter[str]()
        self.started, self.lost = 0, 0
        self.done: set[str] = set()
        self.workers: list[tuple[str, Process]] = []
        self.later: list[tuple[float, Process | None]] = []  # when to go on, who (None: the disk)

    def blow(self) -> None:
        """Until both sweeps are done."""
        next_fault, anyone = time.monotonic() + 5, False
        try:
            while len(self.done) < len(SEEDS):
                self.look()
                if (
                    self.faults["SIGKILL"] < self.options.kills
                    and time.monotonic() > next_fault
                    and self.strike(anyone)
                ):
                    next_fault = time.monotonic() + self.random.expovariate(1 / self.options.seconds)
                    anyone = self.random.random() < 0.1
                for entry in [e for e in self.later if e[0] < time.monotonic()]:
                    self.later.remove(entry)
                    signal_to(entry[1], signal.SIGCONT) if entry[1] else self.disk.empty()
                time.sleep(0.05)
            self.settle()
        finally:
            self.disk.empty()
            for _, worker in self.workers:
                worker.kill()
                worker.join()

    def look(self) -> None:
        """Note who has left, and start as many again."""
        for name, worker in list(self.workers):
            if (code := worker.exitcode) is not None:
                self.workers.remove((name, worker))
                self.codes[f"exit code {code}" if code >= 0 else signal.Signals(-code).name] += 1
                if code == 0:
                    self.done.add(name)
                elif code not in (-signal.SIGKILL, -signal.SIGTERM, 130, 2):  # SIGTERM: while it starts
                    raise Trouble(f"a worker of {name} ended with {code}: see {self.home}/worker-*.log")
        while len(self.workers) < self.options.workers and (left := [n for n in SEEDS if n not in self.done]):
            count = Counter(n for n, _ in self.workers)
            self.start(min(left, key=lambda n: count[n]))

    def start(self, name: str) -> None:
        self.started += 1
        limited = not self.disk.mounted and any(who is None for _, who in self.later)
        command = ["work", f"sweep.name={name}", f"store={self.store}", "train.device=cpu"]
        command.append(f"launch.stale_seconds={STALE_SECONDS}")
        log = self.home / f"worker-{self.started:04d}.log"
        self.workers.append((name, start(command, log, 4096 if limited else None)))

    def strike(self, anyone: bool) -> bool:
        """One fault, for a worker that is training, so that there is something to lose, or for `anyone`."""
        busy = {json_of(p).get("pid") for p in self.store.glob("sweeps/*/packs/*/claim")}
        training = [w for _, w in self.workers if (anyone or w.pid in busy) and w.exitcode is None]
        fault = self.random.choices(list(FAULTS), FAULTS.values())[0]
        if not training:
            return False
        worker = self.random.choice(training)
        if fault == "SIGKILL":
            self.lost += sum(self.report(p) for p in self.attempts(worker.pid))
            signal_to(worker, signal.SIGKILL)
        elif fault == "SIGTERM":
            signal_to(worker, signal.SIGTERM)
        elif fault == "SIGSTOP":
            signal_to(worker, signal.SIGSTOP)
            self.later.append((time.monotonic() + self.random.uniform(0.2, 2.5 * STALE_SECONDS), worker))
        elif fault == "disk full":
            if any(who is None for _, who in self.later):
                return False
            if self.disk.mounted:
                self.disk.fill()
            self.later.append((time.monotonic() + self.random.uniform(1, 4), None))
        elif not self.cut():
            return False
        self.faults[fault] += 1
        return True

    def cut(self) -> bool:
        """Cut a checkpoint, a report, or a state that somebody may want to start from."""
        attempts = "sweeps/*/packs/*/attempt-*"
        where = self.random.choice([f"{attempts}/*.npz", f"{attempts}/progress.json", "segments/*/*/state.npy"])
        files = sorted(self.store.glob(where))
        if not files:
            return False
        path = self.random.choice(files)
        with contextlib.suppress(FileNotFoundError):
            os.truncate(path, self.random.randint(0, path.stat().st_size))
        return True

    def settle(self) -> None:
        """Let the stopped go on, and wait for all to leave."""
        self.disk.empty()
        for _, worker in self.workers:
            signal_to(worker, signal.SIGCONT)
        deadline = time.monotonic() + 60
        while self.workers:
            self.look()
            time.sleep(0.05)
            if time.monotonic() > deadline:
                raise Trouble(f"{len(self.workers)} workers do not leave when all is done")

    def attempts(self, pid: int | None) -> Iterator[Path]:
        for claim in self.store.glob("sweeps/*/packs/*/claim"):
            who = json_of(claim)
            if who.get("pid") == pid:
                yield from claim.parent.glob(f"attempt-*-{who['token'][:8]}")

    def report(self, attempt: Path) -> int:
        """Tokens that an attempt has reported."""
        progress = json_of(attempt / "progress.json")
        return progress.get("tokens", 0) - progress.get("begun", 0)

    def trained(self) -> int:
        """Tokens that workers say they trained, those of the killed as last reported."""
        logs = "".join(p.read_text() for p in self.home.glob("worker-*.log"))
        return self.lost + sum(int(b) - int(a) for a, b in re.findall(r": tokens (\d+) to (\d+) of", logs))


def verify(store: Path, calm: Path, options: argparse.Namespace) -> None:
    """All that must hold at the end."""
    ids = {i for name in SEEDS for i in json_of(store / "sweeps" / name / "plan.json")["runs"]}
    if len(ids) != 60 or results(store) != ids:
        raise Trouble(f"{len(ids)} runs were asked for, {len(results(store))} are published")
    a, b = Store(store), Store(calm)
    for run_id in ids:
        ours, theirs = (arrays(store.curve(run_id)) for store in (a, b))
        for name in ours.keys() | theirs.keys():
            if not np.array_equal(ours.get(name), theirs.get(name)):
                raise Trouble(f"run {run_id}: its curve's {name} differs")
        ours, theirs = ((r.final_loss, r.val_se) if (r := s.result(run_id)) else None for s in (a, b))
        if ours != theirs:
            raise Trouble(f"run {run_id}: loss and its error {ours}, undisturbed {theirs}")
        ours, theirs = (load_file(store.run(run_id) / "weights.safetensors") for store in (a, b))
        if not all(np.array_equal(ours[name], values) for name, values in theirs.items()):
            raise Trouble(f"run {run_id}: its weights differ")
    for what, pattern in {"failures": "failed-*.json", "temporary files": "*.tmp", "claims": "claim"}.items():
        if left := list(store.rglob(pattern)):
            raise Trouble(f"{what} are left: {', '.join(map(str, left[:5]))}")
    for name in SEEDS:
        # a cut state that nothing starts from any more stays cut until gc; it is named, which is what a check is for
        run("gc", name, store, f"store={store}")
        run("status", name, store, f"sweep.name={name}", f"store={store}", "--check")


def arrays(curve: RunCurve) -> dict[str, np.ndarray]:
    """All of a curve, telemetry included."""
    named = {f"telemetry.{name}": values for name, values in curve.telemetry.items()}
    return {**vars(curve), **named, "telemetry": np.array(len(named))}


def tokens_needed(store: Path) -> int:
    """Of the segments of both sweeps, each counted once."""
    ends: dict[tuple[str, int], int] = {}
    for name in SEEDS:
        for pack in json_of(store / "sweeps" / name / "plan.json")["packs"]:
            for node in (n for member in pack["members"] for n in member):
                end = node["phases"][-1][2]
                ends[node["lineage"], end] = end - (node["parent"][1] if node["parent"] else 0)
    return sum(ends.values())


def results(store: Path) -> set[str]:
    return {p.parent.name for p in store.glob("runs/*/result.json")}


def json_of(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


if __name__ == "__main__":
    sys.exit(main())
