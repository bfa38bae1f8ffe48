"""Optimal learning rate and batch, predicted from small grids: what it costs at larger ones (Step Law's, 2503.04715).

    python scripts/bench_optimum.py --data ../shared/data

Laws are fitted on the cells below 1e20 FLOPs. Excess: how much above its own optimum each larger cell trains at the
predicted one, in %; its own optimum is the vertex of a quadratic through the runs within a window of its lowest loss.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from proxytrain.fit import fit_optimum

WINDOWS = (0.005, 0.0075, 0.01, 0.015, 0.02, 0.03)
Law = Callable[[float, float], np.ndarray]  # params, tokens -> (2,) log lr, log batch


def vertex(cell: pd.DataFrame, window: float) -> tuple[np.ndarray, np.ndarray]:
    """(2,) optimum and (2, 2) curvature of a quadratic through the runs within `window` of the lowest log loss."""
    near = cell[np.log(cell["loss"]) < np.log(cell["loss"].min()) + window]
    x = np.log(near[["lr", "batch_tokens"]].to_numpy())
    u = x - x.mean(0)
    design = np.column_stack([np.ones(len(u)), u, u[:, 0] ** 2 / 2, u[:, 0] * u[:, 1], u[:, 1] ** 2 / 2])
    _, a, b, hh, hb, bb = np.linalg.lstsq(design, np.log(near["loss"]), rcond=None)[0]
    steep = np.array([[hh, hb], [hb, bb]])
    return x.mean(0) - np.linalg.solve(steep, [a, b]), steep


def independent(small: pd.DataFrame, window: float) -> Law:
    """Each cell's own quadratic, then least squares: rate by params and tokens, batch by tokens."""
    cells = list(small.groupby(["params", "tokens"]))
    own = np.array([vertex(cell, window)[0] for _, cell in cells])
    z = np.array([[1.0, np.log(n), np.log(d)] for (n, d), _ in cells])
    rate, batch = (np.linalg.lstsq(z[:, c], own[:, j], rcond=None)[0] for j, c in enumerate(([0, 1, 2], [0, 2])))
    return lambda n, d: np.array([rate @ [1, np.log(n), np.log(d)], batch @ [1, np.log(d)]])


def published(n: float, d: float) -> np.ndarray:
    return np.log([1.79 * n**-0.713 * d**0.307, 0.58 * d**0.571])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    path = parser.parse_args().data / "optimum" / "steplaw_dense.csv"
    table = pd.read_csv(path).rename(columns={"params_nonembedding": "params"})
    table["batch_tokens"] = 2048.0 * table["batch_sequences_of_2048"]
    table = table[["params", "tokens", "lr", "batch_tokens", "loss"]].astype(float)
    large = 6 * table["params"] * table["tokens"] >= 1e20
    begin = time.process_time()
    fit_optimum(table)
    print(f"{len(table)} runs, law with intervals and hold-out: {time.process_time() - begin:.2f} s of CPU")
    fit = fit_optimum(table[~large])
    print("\n".join(fit.summary()))

    def ours(n: float, d: float) -> np.ndarray:
        best = fit.predict(params=n, tokens=d)
        return np.log([best.lr, best.batch_tokens or np.nan])

    print("\nexcess over the larger cells' own optimum, %: mean / largest")
    print("window   ours            published law   quadratics")
    for window in WINDOWS:
        own = {key: vertex(cell, window) for key, cell in table[large].groupby(["params", "tokens"])}
        row = []
        for law in (ours, published, independent(table[~large], window)):
            offs = [(law(*key) - at, steep) for key, (at, steep) in own.items()]  # type: ignore[misc]
            excess = [100 * float(off @ steep @ off) / 2 for off, steep in offs]
            row.append(f"{np.mean(excess):.3f} / {np.max(excess):.3f}")
        print(f"{100 * window:4.2f}%    " + "   ".join(row))


if __name__ == "__main__":
    main()
