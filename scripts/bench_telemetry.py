"""What telemetry costs: one look in updates, and its share of training at the default interval.

    python scripts/bench_telemetry.py [--widths 32,64,128] [--members 1,4] [--json FILE]

Blocks of updates with a look at every one and with none, in turn, in CPU time of one thread; medians of paired
differences, so that a busy machine changes them little. The default model at context 128, 1,024 tokens an update.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sysconfig
import tempfile
import time
from pathlib import Path

import torch

from proxytrain.launch.settle import settle
from proxytrain.monitor.console import Console
from proxytrain.plan.pack import Member, Pack
from proxytrain.plan.share import forest
from proxytrain.sweep.request import request
from proxytrain.train.update import Update, fresh

UPDATES, TURNS = 8, 7  # of a block; blocks of each kind, one more to warm up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="32,64,128")
    parser.add_argument("--members", default="1,4")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    settle(1)
    rows = []
    print(f"{'width':>5} {'K':>3} {'update':>9} {'a look':>9} {'of an update':>13} {'at the default':>15}")
    with tempfile.TemporaryDirectory() as folder:
        for width in map(int, options.widths.split(",")):
            for members in map(int, options.members.split(",")):
                step, every = prepared(folder, width, members)
                update, look = measured(step)
                share = look / update / every
                rows.append({"width": width, "members": members, "update": update, "look": look, "share": share})
                print(
                    f"{width:5} {members:3} {1e3 * update:6.1f} ms {1e3 * look:6.1f} ms {look / update:12.0%} "
                    f"{share:10.2%} of {every}"
                )
    print(f"most: {max(r['share'] for r in rows):.2%} of update time (aim < 3%)")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def prepared(folder: str, width: int, members: int) -> tuple[Update, int]:
    """A pack's update, and the default interval."""
    stdlib = sysconfig.get_path("stdlib")
    text = [f"data.files=[{stdlib}/*.py]", "data=files", "data.val_tokens=1024", "model.context=128"]
    grid = f"sweep.grids=[{{init_seed:{list(range(members))}}}]"
    asked = request(
        [*text, f"model.width={width}", grid, "tokens=4M", "schedule=constant", "data_seed=0", "data.allow_repeat=true",
         f"store={folder}"],
        None,
        Console(quiet=True),
    )  # fmt: skip
    segments = [s for s in forest(asked.runs).values() if s.run_id]
    pack = Pack(tuple(Member((s,)) for s in segments))
    return fresh(pack, asked.corpus, 1, torch.device("cpu")), asked.config.train.telemetry_every


def measured(step: Update) -> tuple[float, float]:
    """CPU seconds of an update, and of a look beside it."""
    plain, extra = [], []
    for turn in range(TURNS + 1):
        took = []
        for every in (0, 1) if turn % 2 else (1, 0):
            step.telemetry_every = every
            began = time.process_time()
            step.updates(UPDATES, lambda: False)
            took.append((every, (time.process_time() - began) / UPDATES))
        if turn:
            seconds = dict(took)
            plain.append(seconds[0])
            extra.append(seconds[1] - seconds[0])
    return statistics.median(plain), statistics.median(extra)


if __name__ == "__main__":
    main()
