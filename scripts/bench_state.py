"""What safety costs: saving, resuming, claims and small runs, bytes on disk.

    python scripts/bench_state.py [--runs 1000] [--json FILE]

Saving and resuming are timed in this process on packs of four members; the runs of about a second each are trained by
four real workers in a temporary store. Shares are of seconds measured side by side, so that a busy machine changes them
little; seconds are the least of several.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from proxytrain.launch.housekeeping import disk_use
from proxytrain.monitor.console import Console
from proxytrain.plan.pack import Member, Pack
from proxytrain.plan.share import forest
from proxytrain.store.store import Store
from proxytrain.sweep.request import request
from proxytrain.train import checkpoint
from proxytrain.train.members import Active, Rows

STDLIB = sysconfig.get_path("stdlib")
TEXT = [
    f"data.files=[{STDLIB}/json/*.py,{STDLIB}/email/*.py,{STDLIB}/http/*.py]",
    *("data=files", "data.tokenizer=bytes", "data.val_fraction=0.1", "data.val_tokens=1024", "train.device=cpu"),
]
INTERVAL = 30.0  # train.checkpoint_seconds
UPDATES = 4000  # rows of the curve since the checkpoint before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="of about a second each")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[tuple[str, float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for width in (64, 256):
            rows += saving(Path(folder) / str(width), width)
        rows += small_runs(Path(folder) / "small", options.runs)
    for what, value, unit in rows:
        print(f"{what:72} {value:10.4g} {unit}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def saving(store: Path, width: int) -> list[tuple[str, float, str]]:
    """What a checkpoint takes from training (CPU time, the thread's included), and what reading it back takes."""
    grid = "sweep.grids=[{init_seed:[0,1,2,3]}]"
    asked = request(
        [*TEXT, f"model.width={width}", "tokens=8M", "schedule=constant", grid, f"store={store}"],
        None,
        Console(quiet=True),
    )
    segments = [s for s in forest(asked.runs).values() if s.run_id]
    pack = Pack(tuple(Member((s,)) for s in segments))
    batch = asked.runs[0].recipe.batch_tokens
    best = dict.fromkeys(("copy", "all", "resume"), float("inf"))
    for repeat in range(5):
        active = [Active(index=i, member=m, position=UPDATES * batch) for i, m in enumerate(pack.members)]
        for a in active:
            a.curve["tokens"].append(np.arange(batch, a.position + 1, batch))
            for name in ("lr", "loss", "grad_norm"):
                a.curve[name].append(np.random.default_rng(0).random(UPDATES))
        rows = Rows.allocate(active, torch.device("cpu"))
        rows.state.weights.normal_()
        attempt = store / "pack" / f"attempt-{repeat:03d}"
        attempt.mkdir(parents=True)
        saver = checkpoint.Saver(attempt, list)
        before, began = time.process_time(), time.thread_time()
        saver.save(rows)
        best["copy"] = min(best["copy"], time.thread_time() - began)
        saver.close()
        best["all"] = min(best["all"], time.process_time() - before)
        before = time.process_time()
        assert checkpoint.latest([store / "pack"], pack, torch.device("cpu")) is not None
        best["resume"] = min(best["resume"], time.process_time() - before)
    size = sum(p.stat().st_size for p in attempt.iterdir())
    name = f"width {width} x 4 members, {UPDATES} rows each"
    return [
        (f"{name}: a checkpoint", size / 1e6, "MB"),
        (f"{name}: training stands still for", 1000 * best["copy"], "ms"),
        (
            f"{name}: CPU time of saving, of training's at the default interval",
            100 * best["all"] / INTERVAL,
            "% (aim < 2)",
        ),
        (f"{name}: read back", best["resume"], "s (aim < 5, first update included)"),
    ]


def small_runs(store: Path, runs: int) -> list[tuple[str, float, str]]:
    """What four workers spend on anything but training, on runs of about a second each."""
    rates = ",".join(f"{0.001 * (i + 1):.3f}" for i in range(-(-runs // 4)))
    sweep_of = [*TEXT, "sweep.name=small", f"store={store}", "model.width=32", "tokens=64K", "warmup=0"]
    sweep_of += [f"sweep.grids=[{{schedule:constant,lr:[{rates}],init_seed:[0,1,2,3]}}]", "train.eval_tokens=1024"]
    subprocess.run(command("plan", *sweep_of), check=True, capture_output=True)
    plan = json.loads((store / "sweeps/small/plan.json").read_text())
    work = command("work", "sweep.name=small", f"store={store}", "train.device=cpu")
    began = time.monotonic()
    workers = [subprocess.Popen(work, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(4)]
    logs = [w.communicate()[0] for w in workers]
    wall = time.monotonic() - began
    assert not any(w.returncode for w in workers)
    attempts = [line for log in logs for line in log.splitlines() if ": tokens " in line]
    starts = []
    for _ in range(3):
        again = time.monotonic()
        subprocess.run(work, check=True, capture_output=True)  # finds nothing to do
        starts.append(time.monotonic() - again)
    metas = [json.loads(p.read_text()) for p in store.glob("segments/*/*/segment.json")]
    trained = sum(m["seconds"] for m in metas)
    spent = 4 * wall - 4 * min(starts)
    began = time.monotonic()
    subprocess.run(command("status", "sweep.name=small", f"store={store}"), check=True, capture_output=True)
    status = time.monotonic() - began
    use = disk_use(Store(store))
    each = len(plan["runs"])
    return [
        (f"{each} runs in {len(plan['packs'])} packs by four workers", wall, "s"),
        ("seconds of training a run", trained / each, "s"),
        ("workers' time that is not training, start-up apart", 100 * (spent / trained - 1), "% (aim < 10)"),
        ("packs trained twice", len(attempts) - len(plan["packs"]), "(aim 0)"),
        (f"status of {each} runs", status, "s (aim < 2 for 1,000)"),
        ("bytes a run: results and weights", (use["runs"] + use.get("weights", 0)) / each, "B"),
        ("bytes a run: segments with curves of 64 updates", use["segments"] / each, "B"),
        ("bytes a run: states to go on from", use.get("states", 0) / each, "B"),
    ]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "proxytrain", *arguments]


if __name__ == "__main__":
    main()
