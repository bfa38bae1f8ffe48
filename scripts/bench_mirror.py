"""What the W&B mirror costs: its processor time, wandb's own process included, against that of the training it follows.

    python scripts/bench_mirror.py [members] [tokens]      # 64 runs of one shape, 2M tokens each

Trains a sweep of `members` seeds with `track=wandb` against the tests' loopback server, at the rate and the intervals
that users have, and prints the processor seconds of the workers and of the mirror until the training has ended. Wall
time says nothing on a machine that others use.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "track"))
from wandb_server import Server  # noqa: E402


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(p for child in children for p in tree(int(child)))]


def seconds(pid: int) -> float:
    """Processor seconds of a process so far, 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def main(members: int = 64, tokens: str = "2M") -> None:
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "proxytrain", "sweep", f"store={folder}/runs", "data=prose", "track=wandb"]
        command += [
            f"sweep.grids=[{{model.width:32,tokens:{tokens},init_seed:{list(range(members))}}}]".replace(" ", "")
        ]
        job = subprocess.Popen([*command, *sys.argv[3:]], env=environment, start_new_session=True)
        spent: dict[int, tuple[str, float]] = {}
        began, seen = 0.0, 0.0
        while job.poll() is None:
            time.sleep(0.2)
            working = False
            for pid in tree(job.pid):
                name = command_of(pid)
                kind = "mirror" if " track sync " in name or "wandb-core" in name else "training"
                if " work " in name or kind == "mirror":
                    spent[pid] = (kind, max(seconds(pid), spent.get(pid, ("", 0.0))[1]))
                working = working or " work " in name
            if working:
                began, seen = began or time.monotonic(), time.monotonic()
            elif seen:
                job.send_signal(signal.SIGINT)  # what is sent after the training costs it nothing
                job.wait()
        total = {kind: sum(s for k, s in spent.values() if k == kind) for kind in ("training", "mirror")}
        visits = sum(operation == "RunResumeStatus" for _, operation in server.requests)
        cores = len(os.sched_getaffinity(0))
        print(
            f"{members} runs of {tokens} tokens in {seen - began:.0f} s: training {total['training']:.1f} s of "
            f"processor time, the mirror {total['mirror']:.1f} s meanwhile, {total['mirror'] / total['training']:.2%} "
            f"of it and {total['mirror'] / cores / (seen - began):.2%} of {cores} cores; {visits} visits, "
            f"{len(server.requests)} requests"
        )


if __name__ == "__main__":
    main(*(cast(value) for cast, value in zip((int, str), sys.argv[1:3])))
