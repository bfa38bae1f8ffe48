"""How well small grids predict: seeds a width and lengths to choose from, drawn from the bank many times.

    python scripts/bench_designs.py [--draws 24] [--target 176@5] 32:2,64:4,96:4@1,1.6,2.5 32:4,64:4,96:2@1,1.6,2.5

A design is seeds at each width, then lengths in M tokens; its final losses predict a cell of the bank, width@length. A
draw takes its seeds from one order of the bank's eight, the same at each width, and its truth from those that are left.
Columns in %: root mean square error, mean error, half-width of the 90% interval, share of truths inside.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from bench_bank import BANK, LEVEL, read

from proxytrain import fit_losses
from proxytrain.errors import Refusal


def parsed(design: str) -> tuple[dict[int, int], list[float]]:
    """Seeds at each width, and lengths in M tokens."""
    grid, _, lengths = design.partition("@")
    seeds = {int(w): int(count) for w, _, count in (pair.partition(":") for pair in grid.split(","))}
    return seeds, [float(x) for x in lengths.split(",")]


def drawn(case: tuple[str, str, int], folder: Path) -> dict[str, object]:
    """One draw of a design: its prediction against the truths that it has not seen, in log loss."""
    design, target, draw = case
    seeds, lengths = parsed(design)
    width, _, tokens = target.partition("@")
    bank = read(folder)
    length, order = (bank["tokens"] / 1e6).round(1), np.random.default_rng(draw).permutation(8)
    among = length.isin(lengths)
    rows = pd.concat(
        bank[(bank["width"] == w) & among & bank["init_seed"].isin(order[:count])] for w, count in seeds.items()
    )
    seen = bank["init_seed"].isin(order[: max(seeds.values())])
    goal = bank[(bank["width"] == int(width)) & (length == float(tokens)) & ~seen]
    truth, row = np.log(goal["loss"]), {"design": design}
    if goal.empty:  # the draw has seen all that is known of the target
        return row
    try:
        fitted = fit_losses(rows, level=LEVEL)
        answer = fitted.predict(params=float(goal["params"].iloc[0]), tokens=float(goal["tokens"].iloc[0]))
    except Refusal:
        return row
    centre, low, high = np.log([answer.loss, answer.low, answer.high])
    inside = float(((low <= truth) & (truth <= high)).mean())
    return {**row, "error": centre - truth.mean(), "half": (high - low) / 2, "inside": inside}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("designs", nargs="+", metavar="SEEDS@LENGTHS")
    parser.add_argument("--draws", type=int, default=24)
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--target", default="176@5", metavar="WIDTH@LENGTH", help="a cell of the bank (176@5)")
    options = parser.parse_args()
    bank = read(options.bank)
    cells = sorted({f"{width}@{tokens / 1e6:.2g}" for width, tokens in zip(bank["width"], bank["tokens"])})
    if options.target not in cells:
        parser.error(f"--target {options.target}: the bank has {', '.join(cells)}")
    for design in options.designs:
        try:
            parsed(design)
        except ValueError:
            parser.error(f"{design}: a design reads 32:2,64:4@1,2.5")
    cases = [(d, options.target, i) for d, i in product(options.designs, range(options.draws))]
    with ProcessPoolExecutor() as pool:
        rows = pd.DataFrame(list(pool.map(partial(drawn, folder=options.bank), cases)))
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
