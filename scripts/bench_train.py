"""Throughput of packs against the same models as plain processes, one a run, in their best arrangement.

    python scripts/bench_train.py [--widths 32,64] [--tokens 512,4096] [--members 1,4,16] [--no-compile] [--json FILE]
                                  [KEY=VALUE ...]

Both use the whole machine: on a CPU, packs are trained by one worker of one thread a core, and plain runs (the loop of
`plain_gpt.py`) by as many processes of one thread, or by one process with all threads, whichever is faster. All
processes of a shape live at once and take turns of half a second, so that a busy machine slows all alike; figures are
medians of the turns, ratios are of neighbouring turns. With a GPU, plain runs are tried as 1 and 4 processes, and
compiled also with CUDA graphs (reduce-overhead).

Columns: K members of each worker's pack; tokens/s of all workers; MFU, the share of the peak that a matrix product has
here; `bound`, the share of the roofline's throughput; peak memory of a worker beyond what it had before, and its
estimate; the ratio to the best arrangement of plain eager processes, and to that of plain ones made the same way
(compiled: with CUDA graphs or without).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

TURNS, SECONDS = 5, 0.5
LARGE = 256  # from this width on a CPU takes too long for all shapes and members


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="32,64,128,256,512,1024")
    parser.add_argument("--tokens", default=None, help="an update; default 512,4096 (GPU: 2048,65536)")
    parser.add_argument("--members", default=None, help="in all; of a worker; default 1,4,16 (GPU: 1,16,64)")
    parser.add_argument("--no-compile", action="store_true", help="eager only: takes a third of the time")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more of the recipe: model.context=512 ...")
    options = parser.parse_intermixed_args()
    if options.worker:
        return worker(json.loads(options.worker))
    import torch

    from proxytrain.launch.machine import name
    from proxytrain.launch.probe import peaks

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cores = len(os.sched_getaffinity(0)) if device == "cpu" else 1
    torch.set_num_threads(1)
    more = options.overrides
    if not any(word.startswith("train.precision=") for word in more):
        more = [f"train.precision={'float32' if device == 'cpu' else 'bfloat16'}", *more]
    precision = next(word for word in more if word.startswith("train.precision=")).partition("=")[2]
    flops, bandwidth = (cores * x for x in peaks(torch.device(device), precision))
    widths, batches, sizes = (
        [int(x) for x in text.split(",")]
        for text in (
            options.widths,
            options.tokens or ("512,4096" if device == "cpu" else "2048,65536"),
            options.members or ("1,4,16" if device == "cpu" else "1,16,64"),
        )
    )
    print(f"{name(device, 1)} x {cores}, torch {torch.__version__}; {flops:.3g} FLOP/s, {bandwidth:.3g} bytes/s in all")
    print(f"default model, depth 2, context 64, bytes; {' '.join(more)}")
    heads = f"{'tokens/s':>10} {'MFU':>6} {'bound':>6} {'peak':>8} {'model':>8}  ratio same way"
    print(f"{'width':>5} {'tokens':>6} {'K':>3} {'how':22} {heads}")
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for width in widths:
            for tokens in batches[:1] if width >= LARGE and device == "cpu" else batches:
                few = width >= LARGE and device == "cpu"
                compiling = not options.no_compile and not few and tokens == batches[0]
                some = sizes if tokens == batches[0] and not few else [k for k in sizes if k == 4] or sizes[:1]
                if few and width > LARGE:
                    some = sizes[:1]
                found = shape(folder, width, tokens, some, compiling, device, cores, more)
                for row in found:
                    row |= roofline(row, flops, bandwidth)
                    show(row)
                figures += found
                if options.json:
                    machine = {"machine": name(device, 1), "cores": cores, "flops": flops, "bandwidth": bandwidth}
                    options.json.write_text(json.dumps({**machine, "recipe": more, "rows": figures}, indent=1) + "\n")
    worst = min((r["ratio"], r["width"], r["tokens"]) for r in figures if r["best"])
    print(f"least ratio of the best pack to the best plain eager: {worst[0]:.2f} (width {worst[1]}, {worst[2]} tokens)")


def shape(
    folder: str, width: int, tokens: int, sizes: list[int], compiling: bool, device: str, cores: int, more: list[str]
) -> list[dict[str, Any]]:
    """All arrangements of one shape, turn by turn."""
    base = {"folder": folder, "width": width, "tokens": tokens, "device": device, "more": more}
    arrangements: dict[tuple[str, int], list[Process]] = {}
    plain_counts = {(cores, 1), (1, cores)} if device == "cpu" else {(1, 1), (4, 1)}
    if device == "cuda" and width * tokens >= 1 << 24:  # one process fills the GPU, and more do not fit
        plain_counts = {(1, 1)}
    ways = ["eager", *(["compiled"] if compiling else []), *(["graphs"] if compiling and device == "cuda" else [])]
    for how in ways:
        for count, threads in sorted(plain_counts):
            if how == "eager" or threads == 1:
                spec = {**base, "kind": "plain", "how": how, "threads": threads}
                arrangements[f"plain {how} {count}x{threads}", 0] = [Process(spec) for _ in range(count)]
        if how != "graphs":
            few = [4] if 4 in sizes else sizes[-1:]  # of the way that matters less on this device, and costs time
            for k in sizes if (how == "eager") == (device == "cpu") else few:
                spec = {**base, "kind": "pack", "how": how, "threads": 1, "members": k}
                arrangements[f"pack {how}", k] = [Process({**spec, "seed": i * k}) for i in range(cores)]
    try:
        for processes in arrangements.values():
            for p in processes:
                p.ready()
        speeds: dict[tuple[str, int], list[float]] = {key: [] for key in arrangements}
        for turn in range(TURNS + 1):
            for key, processes in arrangements.items():
                speed = together(processes)
                if turn:
                    speeds[key].append(speed)
        peaks = {key: max(p.ask("memory")["memory"] for p in ps) for key, ps in arrangements.items()}
        model = {key: ps[0].facts for key, ps in arrangements.items()}
    finally:
        for p in (p for ps in arrangements.values() for p in ps):
            p.end()
    median = {key: statistics.median(s) for key, s in speeds.items()}
    rows = []
    best_plain = {
        how: max((k for k in median if k[0].startswith(f"plain {how}")), key=lambda k: median[k]) for how in ways
    }
    programs = [best_plain[how] for how in ways if how != "eager"]
    rival = dict.fromkeys(ways, max(programs, key=lambda k: median[k], default=None)) | {"eager": best_plain["eager"]}
    packs = [k for k in median if k[0].startswith("pack")]
    best = max(packs, key=lambda k: median[k])
    for key in [*best_plain.values(), *packs]:
        how = key[0].split()[1]
        rivals = {"ratio": best_plain["eager"], "ratio_same_way": rival[how]} if key in packs else {}
        ratios = {n: statistics.median(a / b for a, b in zip(speeds[key], speeds[r])) for n, r in rivals.items()}
        rows.append(
            {
                "width": width,
                "tokens": tokens,
                "members": key[1],
                "how": key[0],
                "tokens_per_second": median[key],
                "memory": peaks[key],
                **model[key],
                **ratios,
                "best": key == best,
            }
        )
    return rows


def roofline(row: dict[str, Any], flops: float, bandwidth: float) -> dict[str, float]:
    """Shares of the peak, and of the throughput that peak and bandwidth allow."""
    least = max(row["flops_per_token"] / flops, row["bytes_per_token"] / bandwidth)
    return {
        "flops_used": row["tokens_per_second"] * row["flops_per_token"] / flops,
        "of_roofline": row["tokens_per_second"] * least,
    }


def show(r: dict[str, Any]) -> None:
    words = ""
    if "ratio" in r:
        words = f"{r['ratio']:5.2f} {r['ratio_same_way']:8.2f}" + ("  the best here" if r["best"] else "")
    print(
        f"{r['width']:5} {r['tokens']:6} {r['members'] or '':>3} {r['how']:22} {r['tokens_per_second']:10,.0f} "
        f"{r['flops_used']:6.1%} {r['of_roofline']:6.1%} {r['memory'] / 1e6:6.0f}MB "
        f"{r['estimate'] / 1e6:6.0f}MB  {words}",
        flush=True,
    )


class Process:
    """A process of an arrangement: it builds what it trains, then trains for as long as it is told."""

    def __init__(self, spec: dict[str, Any]):
        threads = str(spec["threads"])
        self.child = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )
        self.facts: dict[str, float] = {}

    def ready(self) -> None:
        self.facts = self.answer()

    def tell(self, what: str) -> None:
        assert self.child.stdin
        self.child.stdin.write(f"{what}\n")
        self.child.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.child.stdout
        line = self.child.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with exit code {self.child.wait()}")
        return json.loads(line)

    def ask(self, what: str) -> dict[str, Any]:
        self.tell(what)
        return self.answer()

    def end(self) -> None:
        self.child.terminate()
        self.child.wait()


def together(processes: list[Process]) -> float:
    """Tokens a second of all, while all are at work."""
    for p in processes:
        p.tell("go")
    return sum(a["tokens"] / a["seconds"] for a in [p.answer() for p in processes])


def worker(spec: dict[str, Any]) -> None:
    """Answers `go` with tokens and seconds, `memory` with bytes; every answer is a line of JSON."""
    import torch

    from proxytrain.model import accounting
    from proxytrain.monitor.console import Console
    from proxytrain.plan.pack import Member, Pack
    from proxytrain.plan.share import forest
    from proxytrain.sweep.request import request

    sys.path.insert(0, str(Path(__file__).parent))
    device = torch.device(spec["device"])
    members, stdlib = spec.get("members", 1), sysconfig.get_path("stdlib")
    overrides = [
        *("data=files", f"data.files=[{stdlib}/email/*.py,{stdlib}/json/*.py]", "data.val_fraction=.1"),
        *(f"store={spec['folder']}", f"model.width={spec['width']}", f"batch_tokens={spec['tokens']}"),
        *("data.allow_repeat=true", f"train.device={spec['device']}", "schedule=constant", "tokens=4B"),
        *spec["more"],
        f"sweep.grids=[{{init_seed:{[spec.get('seed', 0) + i for i in range(members)]},data_seed:0}}]".replace(" ", ""),
    ]
    asked = request(overrides, None, Console(quiet=True))
    recipe = asked.runs[0].recipe
    before = memory("VmRSS")
    if spec["kind"] == "plain":
        from plain_gpt import Training

        torch.set_num_threads(spec["threads"])
        torch.set_flush_denormal(True)
        update = Training(asked.runs[0], asked.corpus.train, spec["device"], spec["how"]).updates
    else:
        from proxytrain.launch.settle import settle
        from proxytrain.train.update import fresh

        settle(spec["threads"])
        pack = Pack(tuple(Member((n,)) for n in forest(asked.runs).values()))
        step = fresh(pack, asked.corpus, 1, device, spec["how"] != "eager")

        def update(count: int) -> None:
            step.updates(count, lambda: False)

    update(1)
    say(
        flops_per_token=accounting.flops_per_token(recipe.model, recipe.vocab),
        bytes_per_token=accounting.update_bytes(recipe.model, recipe.vocab, 1, spec["tokens"], recipe.precision)
        / spec["tokens"],
        estimate=accounting.pack_bytes(
            *(recipe.model, recipe.vocab, members, spec["tokens"]),
            device=device.type,
            precision=recipe.precision,
            native=device.type == "cpu" and spec["how"] == "eager",
        ),
    )
    count = 1
    for line in sys.stdin:
        if line.strip() == "memory":
            peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else memory("VmHWM") - before
            say(memory=peak)
            continue
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            update(count)
            if device.type == "cuda":
                torch.cuda.synchronize()
            done += count
        took = time.perf_counter() - began
        say(tokens=done * members * spec["tokens"], seconds=took)
        count = max(1, min(32, int(done / took * SECONDS / 4)))


def say(**what: float) -> None:
    print(json.dumps(what), flush=True)


def memory(what: str) -> int:
    """Bytes of this process, by the kernel: VmRSS or VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) * 1024


if __name__ == "__main__":
    main()
