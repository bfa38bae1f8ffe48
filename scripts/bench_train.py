"""Throughput of the training loop against the number of members K of a pack, and the cost model against what it took.

    python scripts/bench_train.py [--widths 32,64,128] [--members 1,2,4,8,16] [--json FILE]

One process, one thread (or the GPU); the members of all K take turns, medians of five blocks of updates.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sysconfig
import tempfile
import time
from pathlib import Path

import torch

from proxytrain import sweep
from proxytrain.model import initial
from proxytrain.plan import cost
from proxytrain.plan.pack import Member, Pack
from proxytrain.plan.share import forest
from proxytrain.track.console import Console
from proxytrain.train.loop import Update
from proxytrain.train.members import Active, Rows

BLOCKS, UPDATES = 5, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="32,48,64,128")
    parser.add_argument("--members", default="1,2,4,8,16")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    widths, sizes = ([int(x) for x in text.split(",")] for text in (options.widths, options.members))
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"{name}, {os.cpu_count()} cores, torch {torch.__version__}; 1,024 tokens an update, depth 2, context 64")
    print(f"{'width':>5} {'K':>3} {'tokens/s':>10} {'of K=1':>7} {'estimate':>9}")
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for width in widths:
            benches = {k: Bench(folder, width, k, device) for k in sizes}
            seconds: dict[int, list[float]] = {k: [] for k in sizes}
            for block in range(BLOCKS + 1):
                for k, bench in benches.items():
                    took = bench.block()
                    if block:  # the first warms up
                        seconds[k].append(took)
            rates = {k: k * UPDATES * 1024 / statistics.median(s) for k, s in seconds.items()}
            for k, rate in rates.items():
                gain = rate / rates[sizes[0]]
                guess = benches[k].estimate
                print(f"{width:5} {k:3} {rate:10,.0f} {gain:7.2f} {guess:9,.0f}")
                row = {"width": width, "members": k, "tokens_per_second": rate, "gain": gain, "estimate": guess}
                figures.append({**row, "device": name})
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


class Bench:
    """A pack of K members of one width, and blocks of updates of it."""

    def __init__(self, folder: str, width: int, members: int, device: torch.device):
        text = f"data.files=[{sysconfig.get_path('stdlib')}/email/*.py,{sysconfig.get_path('stdlib')}/json/*.py]"
        overrides = ["data=files", text, "data.val_fraction=.1", f"store={folder}", f"model.width={width}"]
        grid = f"sweep.grids=[{{init_seed:{list(range(members))},schedule:constant,tokens:4M}}]".replace(" ", "")
        asked = sweep.request([*overrides, grid], None, Console(quiet=True))
        pack = Pack(tuple(Member((n,)) for n in forest(asked.runs).values()))
        active = [Active(i, m, 0) for i, m in enumerate(pack.members)]
        rows = Rows.allocate(active, device)
        for i, a in enumerate(active):
            r = a.member.recipe
            rows.state.weights[i] = initial(rows.layout, r.model, r.parametrization, r.init_seed).to(device)
        self.device = device
        self.update = Update(rows, active[0].member.recipe, asked.corpus, 1, device)
        self.estimate = sum(m.tokens for m in pack.members) / cost.seconds(pack, device.type)

    def block(self) -> float:
        began = time.perf_counter()
        self.update.updates(UPDATES, lambda: False)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
