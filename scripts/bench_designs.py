"""How well small grids predict: seeds a width and lengths to choose from, drawn from the bank many times.

    python scripts/bench_designs.py [--draws 24] [--target 208@4] 3,4,3@1,2,4 2,3,3@1,1.4,2,2.8,4

A design is seeds at widths 32, 48 and 64, then lengths in M tokens; it predicts a cell of the bank, width@length. A
draw takes its seeds from one order of the bank's eight, the same at each width, and its truth from those that are left.
Columns in %: root mean square error, mean error, half-width of the 90% interval, share of truths inside.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import numpy as np
import pandas as pd
from bench_bank import BANK, LEVEL, predict, read

from proxytrain.errors import Refusal

WIDTHS = (32, 48, 64)


def drawn(case: tuple[str, str, int]) -> dict[str, object]:
    """One draw of a design: its prediction against the truths that it has not seen, in log loss."""
    design, target, draw = case
    (seeds, lengths), (width, tokens) = (
        [[float(x) for x in p.split(",")] for p in d.split("@")] for d in (design, target)
    )
    bank = read(BANK)
    length, order = (bank["tokens"] / 1e6).round(1), np.random.default_rng(draw).permutation(8)
    rows = pd.concat(
        bank[(bank["width"] == w) & length.isin(lengths) & bank["init_seed"].isin(order[: int(count)])]
        for w, count in zip(WIDTHS, seeds)
    )
    seen = bank["init_seed"].isin(order[: int(max(seeds))])
    goal = bank[bank["width"].isin(width) & length.isin(tokens) & ~seen]
    truth, row = np.log(goal["loss"]), {"design": design}
    try:
        answer = predict(rows, "auto", float(goal["params"].iloc[0]), float(goal["tokens"].iloc[0]))
    except Refusal:
        return row
    centre, low, high = np.log(answer)
    inside = float(((low <= truth) & (truth <= high)).mean())
    return {**row, "error": centre - truth.mean(), "half": (high - low) / 2, "inside": inside}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("designs", nargs="+", metavar="SEEDS@LENGTHS")
    parser.add_argument("--draws", type=int, default=24)
    bank = read(BANK)
    cells = sorted({f"{width}@{tokens / 1e6:.2g}" for width, tokens in zip(bank["width"], bank["tokens"])})
    what = "a cell of the bank (208@4)"
    parser.add_argument("--target", default="208@4", choices=cells, metavar="WIDTH@LENGTH", help=what)
    options = parser.parse_args()
    cases = [(d, options.target, i) for d, i in product(options.designs, range(options.draws))]
    with ProcessPoolExecutor() as pool:
        rows = pd.DataFrame(list(pool.map(drawn, cases)))
    found = rows.groupby("design", sort=False)
    table = found.agg(
        rms=("error", lambda e: np.sqrt((e**2).mean())),
        mean=("error", "mean"),
        half=("half", "mean"),
        inside=("inside", "mean"),
    )
    print((100 * table).round(2).assign(answered=found["error"].count()).to_string())
    print(f"{options.draws} draws each, target {options.target}, level {LEVEL:.0%}, law auto")


if __name__ == "__main__":
    main()
