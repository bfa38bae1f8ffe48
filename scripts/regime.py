"""How well laws hold in a regime (text, model, rate): what widths up to 64 say of larger ones, against their truth.

    python scripts/regime.py NAME [OPTIONS] OVERRIDES...
    python scripts/regime.py prose --seeds 2 --rates .008,.032 data=prose model.context=128

OVERRIDES are those of `proxytrain sweep`. The runs stay in --store, so a second call with more widths, lengths or
seeds trains only what is new.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from proxytrain import fit_losses
from proxytrain.errors import Refusal

LAWS = ("chinchilla", "params_at_tokens", "auto")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--widths", default="32,48,64,96,128")
    parser.add_argument("--lengths", default="0.5M,1M,2M")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--small", type=int, default=64, help="widths up to this one predict the others")
    parser.add_argument(
        "--rates", default="", help="other peak rates, tried at the widths of --rate-widths with seed 0"
    )
    parser.add_argument("--rate-widths", default="32,64,128")
    parser.add_argument("--rate-length", default="1M")
    parser.add_argument("--store", default="runs")
    options, overrides = parser.parse_known_args()
    seeds = ",".join(map(str, range(options.seeds)))
    grids = [f"{{model.width:[{options.widths}],tokens:[{options.lengths}],init_seed:[{seeds}]}}"]
    if options.rates:
        where = f"model.width:[{options.rate_widths}],tokens:{options.rate_length}"
        grids.append(f"{{{where},lr:[{options.rates}]}}")
    ours = [f"store={options.store}", f"sweep.name={options.name}", f"sweep.grids=[{','.join(grids)}]"]
    subprocess.run([sys.executable, "-m", "proxytrain", "sweep", *ours, *overrides], stdout=sys.stderr)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    table = pd.read_csv(Path(options.store) / "sweeps" / options.name / "losses.csv")
    print(f"== {options.name}: {' '.join(overrides)}; {usage.ru_utime + usage.ru_stime:.0f} CPU seconds in this call")
    tried = table["lr"].isin([float(rate) for rate in options.rates.split(",") if rate])
    rates = table[(table["init_seed"] == 0) & table["tokens"].isin(table["tokens"][tried])]
    table = table[~tried]
    cells = table.groupby(["width", "tokens"])["loss"]
    print(cells.mean().unstack().round(4).to_string())
    if options.seeds > 1:
        spread = (table.assign(loss=np.log(table["loss"])).groupby(["width", "tokens"])["loss"].var()).unstack()
        print(f"seed SD %, pooled {100 * math.sqrt(spread.to_numpy().mean()):.2f}; by width", end=" ")
        print((100 * np.sqrt(spread.mean(axis=1))).round(2).to_dict(), end="; by length ")
        print((100 * np.sqrt(spread.mean(axis=0))).round(2).to_dict())
    if table["width"].nunique() > 3:
        for n in ("params", "params_total"):
            print(f"law in width alone, N = {n}:", json.dumps(width_law(table, n, options.small)))
    if table["width"][table["width"] <= options.small].nunique() >= 3:
        print("predicted from widths up to", options.small, json.dumps(predicted(table, options.small)))
    if tried.any():
        by_rate = rates.pivot_table(index="lr", columns=["tokens", "width"], values="loss")
        print("loss by peak rate\n" + by_rate.round(4).to_string())


def width_law(table: pd.DataFrame, n: str, small: int) -> dict[str, list[float]]:
    """E + A N^-alpha at each length through mean losses: alpha, residual % by width, error % from small widths."""
    found = {}
    for tokens, rows in table.groupby("tokens"):
        mean = rows.groupby("width").agg(n=(n, "first"), loss=("loss", "mean"))
        x, y = np.log(mean["n"].to_numpy()), mean["loss"].to_numpy()
        few = mean.index <= small
        alpha, fitted = power_law(x, y, x)
        row = [round(alpha, 2), *(100 * np.log(y / fitted)).round(2)]
        if 3 <= few.sum() < len(mean):
            row.append({"err": (100 * np.log(power_law(x[few], y[few], x)[1] / y)[~few]).round(2).tolist()})
        found[f"{tokens / 1e6:.2g}M"] = row
    return found


def power_law(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> tuple[float, np.ndarray]:
    """Exponent of E + A exp(-alpha x) by least squares, and its values at `at`."""

    def solve(alpha: float) -> tuple[float, np.ndarray]:
        design = np.stack([np.ones_like(x), np.exp(-alpha * (x - x[0]))], axis=1)
        theta, *_ = np.linalg.lstsq(design, y, rcond=None)
        return float(((design @ theta - y) ** 2).sum()), theta

    alpha = minimize_scalar(lambda a: solve(a)[0], bounds=(0.02, 2), method="bounded").x
    theta = solve(alpha)[1]
    return alpha, theta[0] + theta[1] * np.exp(-alpha * (at - x[0]))


def predicted(table: pd.DataFrame, small: int) -> dict[str, list[str]]:
    """Error % [interval %] of each law at the larger widths' mean losses."""
    few, rest = table[table["width"] <= small], table[table["width"] > small]
    targets = rest.groupby(["tokens", "width"]).agg(params=("params", "first"), loss=("loss", "mean")).reset_index()
    found = {}
    for law in LAWS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit = fit_losses(few, law=law, allow_extrapolation=True)
            found[law] = []
            for t in targets.itertuples():
                p = fit.predict(t.params, t.tokens)
                low, mid, high = (100 * math.log(v / t.loss) for v in (p.low, p.loss, p.high))
                found[law].append(f"{t.tokens / 1e6:.2g}M/{t.width}: {mid:+.1f} [{low:+.1f}, {high:+.1f}]")
        except Refusal as refusal:
            found[law] = [str(refusal)]
    return found


if __name__ == "__main__":
    main()
