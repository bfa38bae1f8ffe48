"""The page of a sweep of 500 runs: its bytes, what it costs to write, to open and to point at.

    python scripts/bench_report.py [--store DIR] [--json FILE]

The runs are trained for real (128 updates each, four widths, five endings, 25 seeds; minutes), so that a second call
with --store only writes the page. CPU seconds of whole processes; the browser's times are wall-clock medians.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

LIB = sysconfig.get_path("stdlib")
SEEDS = ",".join(map(str, range(25)))
WIDTHS = "model.width:[16,24,32,48]"
SWEEP = [
    "data=files",
    f"data.files=[{LIB}/json/*.py,{LIB}/email/*.py,{LIB}/http/*.py]",
    "data.val_tokens=8192",
    "model.depth=1",
    "model.head_size=8",
    "model.context=32",
    "tokens=64K",
    "warmup=4K",
    "batch_tokens=512",
    "train.device=cpu",
    "train.eval_every=8K",
    "train.eval_tokens=1024",
    "sweep.name=five_hundred",
    f"sweep.grids=[{{{WIDTHS},tokens:[16K,32K,48K,64K],init_seed:[{SEEDS}]}},"
    f"{{{WIDTHS},schedule:cosine,init_seed:[{SEEDS}]}}]",
    "sweep.target={model:{width:96}}",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    store = options.store or Path(tempfile.mkdtemp())
    proxytrain("sweep", store)
    page = store / "sweeps" / "five_hundred" / "report.html"
    found = {"write, CPU s": proxytrain("report", store), "bytes": page.stat().st_size, **opened(page)}
    print("\n".join(f"{name:28} {value:,.3g}" for name, value in found.items()))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    if not options.store:
        shutil.rmtree(store)


def proxytrain(verb: str, store: Path) -> float:
    """Run a verb on the sweep; its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "proxytrain", verb, *SWEEP, f"store={store}"], check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def opened(page: Path) -> dict[str, float]:
    """Milliseconds until the page has loaded, and from a move of the pointer over the loss curves to the next frame."""
    from playwright.sync_api import sync_playwright

    path = next(p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name)))
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        shown = browser.new_page(viewport={"width": 1200, "height": 900})
        start = time.perf_counter()
        shown.goto(page.resolve().as_uri())
        load = 1000 * (time.perf_counter() - start)
        drawing = shown.locator("#figure-curves svg:visible")
        drawing.scroll_into_view_if_needed()
        box = drawing.bounding_box()
        assert box
        shown.mouse.move(box["x"] + 9, box["y"] + 9)  # finds what can be pointed at, once
        script = """([x, y]) => {
            const at = document.elementFromPoint(x, y), start = performance.now();
            at.dispatchEvent(new PointerEvent("pointermove", {clientX: x, clientY: y, bubbles: true}));
            return performance.now() - start;
        }"""
        places = [(box["x"] + box["width"] * (0.2 + 0.006 * i), box["y"] + box["height"] / 2) for i in range(100)]
        moves = [shown.evaluate(script, place) for place in places]
        browser.close()
    return {"open, ms": load, "point, ms (median)": statistics.median(moves), "point, ms (worst)": max(moves)}


if __name__ == "__main__":
    main()
