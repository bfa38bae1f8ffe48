"""Planning and start-up: importing, planning 10,000 runs and looking at them, the status of 1,000, a sweep run again.

    python scripts/bench_plan.py [--json FILE]

Whole processes, medians of three; the 1,000 runs are trained for real (an update each), in a temporary store.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

TINY = [
    "data=files",
    f"data.files=[{sysconfig.get_path('stdlib')}/json/*.py,{sysconfig.get_path('stdlib')}/email/*.py]",
    "data.val_fraction=0.1",
    "data.val_tokens=1024",
    "model.width=8",
    "model.head_size=8",
    "model.context=8",
    "batch_tokens=64",
    "warmup=0",
    "train.device=cpu",
]
RUNS_1000 = "sweep.grids=[{tokens:64,schedule:constant,lr:[%s],init_seed:[0,1,2,3,4]}]"
RUNS_10000 = (
    "sweep.grids=[{model.width:[32,64,96,128],tokens:[1M,2M,4M,8M,16M],lr:[%s],init_seed:[0,1,2,3,4],"
    "schedule:[wsd,cosine]}]"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rows.append(("import proxytrain", *times([sys.executable, "-c", "import proxytrain"], folder), 0.3))
        large = ["plan", *TINY, "model.context=64", "batch_tokens=1024", "warmup=100K", "sweep.name=large"]
        large.append(RUNS_10000 % ",".join(f"{0.001 * (i + 1):.3f}" for i in range(50)))
        rows.append(("plan of 10,000 runs", *times(command(*large), folder), 10.0))
        rows.append(("a look of the live view at these", *look(command(*large), folder), 0.2))
        small = [*TINY, "sweep.name=small", RUNS_1000 % ",".join(f"{0.0001 * (i + 1):.4f}" for i in range(200))]
        began = time.monotonic()
        subprocess.run(command("sweep", *small), cwd=folder, check=True, capture_output=True)
        rows.append(("1,000 runs of one update, trained", time.monotonic() - began, 0.0, None))
        rows.append(("the same sweep run again", *times(command("sweep", *small), folder), 3.0))
        files = [p for p in Path(folder, "runs").rglob("*") if p.is_file() and "corpora" not in p.parts]
        a_run = sum(p.stat().st_size for p in files) / 1000
        rows.append(("status of 1,000 runs", *times(command("status", "sweep.name=small"), folder), 2.0))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for what, seconds, megabytes, limit in rows:
        aim = f"   aim < {limit:g} s" if limit else ""
        print(f"{what:36} {seconds:7.2f} s {megabytes:7.0f} MB{aim}")
    print(f"{'bytes a run of one update':36} {a_run:7,.0f}")
    if options.json:
        names = ("what", "seconds", "peak_megabytes", "aim_seconds")
        figures = {"rows": [dict(zip(names, row)) for row in rows], "bytes_a_run": a_run}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "proxytrain", *arguments]


def times(arguments: list[str], folder: str) -> tuple[float, float]:
    """Median seconds of three runs, and the largest peak memory of any child so far, in MB."""
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run(arguments, cwd=folder, check=True, capture_output=True)
        seconds.append(time.monotonic() - began)
        for plan in Path(folder).glob("runs/sweeps/large/plan.json"):
            plan.unlink()  # else the second call would find it
    return statistics.median(seconds), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def look(planning: list[str], folder: str) -> tuple[float, float]:
    """CPU seconds of the live view's second look at a large plan that nobody works on, the least of five."""
    from proxytrain.monitor.watch import Watch
    from proxytrain.plan import freeze
    from proxytrain.store.store import Store

    subprocess.run(planning, cwd=folder, check=True, capture_output=True)
    store = Store(Path(folder) / "runs")
    watch = Watch(freeze.load(store.sweep("large") / "plan.json"), store)
    seconds = []
    for _ in range(6):
        began = time.process_time()
        watch.look(workers=2)
        seconds.append(time.process_time() - began)
    return min(seconds[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
