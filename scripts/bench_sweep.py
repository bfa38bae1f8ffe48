"""A whole sweep, 4 widths x 5 lengths x {cosine, WSD, power} x 2 seeds, against the same runs one by one.

    python scripts/bench_sweep.py [--scale 1.0] [--json FILE] [KEY=VALUE ...]

One side is `proxytrain sweep` as a user calls it, from nothing to the last result. The other is the loop of
`plain_gpt.py`: one process of one thread a core, each of which trains whole runs one after the other (the longest
first), so that it pays for its start once and not 120 times. Both prepare nothing: the corpus is there. Seconds of
processors stand beside seconds of the clock, for machines that others use too. Losses of all runs are compared. What
this user's cache holds compiled is used again (another XDG_CACHE_HOME is empty).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

LENGTHS = (65536, 98304, 131072, 196608, 262144)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the runs' lengths")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more of the sweep: train.compile=on ...")
    options = parser.parse_intermixed_args()
    if options.plain:
        return plain(json.loads(options.plain))
    from proxytrain.launch.machine import name
    from proxytrain.monitor.console import Console
    from proxytrain.store.store import Store
    from proxytrain.sweep.request import request

    cores = len(os.sched_getaffinity(0))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*words(folder, options.scale), *options.overrides]
        asked = request(overrides, None, Console(quiet=True))  # prepares the corpus
        command = [sys.executable, "-m", "proxytrain"]
        ours = timed([[*command, "sweep", "--quiet", *overrides]], environment)
        again = timed([[*command, "sweep", "--quiet", *overrides]], environment)
        start = timed([[*command, "work", "sweep.name=bench", f"store={folder}", "train.device=cpu"]], environment)
        plan = json.loads((Path(folder) / "sweeps/bench/plan.json").read_text())
        results = {run.id: Store(folder).result(run.id) for run in asked.runs}
        spec = {"overrides": overrides, "of": cores}
        alone = timed(
            [[sys.executable, __file__, "--plain", json.dumps({**spec, "index": i})] for i in range(cores)], environment
        )
    losses: dict[str, float] = {}
    for text in alone["out"]:
        losses |= json.loads(text)
    apart = max(abs(losses[i] / r.final_loss - 1) for i, r in results.items() if r and r.final_loss)
    costs = plan["costs"]
    figures = {
        "machine": f"{name('cpu', 1)} x {cores}",
        "runs": len(asked.runs),
        "tokens": costs["tokens_shared"],
        "tokens_run_by_run": costs["tokens_unshared"],
        "seconds": ours["seconds"],
        "seconds_run_by_run": alone["seconds"],
        "ratio": alone["seconds"] / ours["seconds"],
        "cpu_seconds": ours["cpu"],
        "cpu_seconds_run_by_run": alone["cpu"],
        "cpu_ratio": alone["cpu"] / ours["cpu"],
        "start_up_share": (again["cpu"] + cores * start["cpu"]) / ours["cpu"],
        "largest_difference_of_a_loss": apart,
    }
    for what, value in figures.items():
        print(f"{what.replace('_', ' '):32} {value if isinstance(value, str) else format(value, ',.4g')}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def words(folder: str, scale: float) -> list[str]:
    stdlib = sysconfig.get_path("stdlib")
    lengths = [round(n * scale / 1024) * 1024 for n in LENGTHS]
    grid = f"{{model.width:[32,48,64,96],tokens:{lengths},schedule:[wsd,cosine,power],init_seed:[0,1]}}"
    return [
        *("data=files", f"data.files=[{stdlib}/*.py]", "data.val_tokens=16384", "data.val_fraction=.05"),
        *(
            f"store={folder}",
            "sweep.name=bench",
            "train.device=cpu",
            f"warmup={round(16 * scale) * 1024}",
            "sweep.target=null",
        ),
        f"sweep.grids=[{grid}]".replace(" ", ""),
    ]


def timed(commands: list[list[str]], environment: dict[str, str]) -> dict[str, Any]:
    """Seconds of the clock and of processors that commands took side by side, and what they printed."""

    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before, began = cpu(), time.perf_counter()
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True, env=environment) for c in commands]
    out = [p.communicate()[0] for p in running]
    if any(p.returncode for p in running):
        raise SystemExit(f"exit codes {[p.returncode for p in running]} of {commands[0][:4]}")
    return {"seconds": time.perf_counter() - began, "cpu": cpu() - before, "out": out}


def plain(spec: dict[str, Any]) -> None:
    """One process of several: every so many of the runs, from the longest; prints their losses."""
    import torch

    from proxytrain.model import accounting
    from proxytrain.monitor.console import Console
    from proxytrain.sweep.request import request

    sys.path.insert(0, str(Path(__file__).parent))
    from plain_gpt import Training

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    asked = request(spec["overrides"], None, Console(quiet=True))
    costs = {r.id: r.tokens * accounting.flops_per_token(r.recipe.model, r.recipe.vocab) for r in asked.runs}
    runs = sorted(asked.runs, key=lambda r: (-costs[r.id], r.id))
    losses = {}
    for run in runs[spec["index"] :: spec["of"]]:
        training = Training(run, asked.corpus.train)
        left = run.tokens // run.recipe.batch_tokens
        while left > 0:  # losses are read, as a log would be, every 32 updates
            training.updates(min(32, left))
            left -= 32
        losses[run.id] = training.evaluate(asked.corpus.val)
    print(json.dumps(losses))


if __name__ == "__main__":
    main()
