"""The bank as small files: final losses and thinned curves of `experiment=bank`, which tests and figures read.

    proxytrain sweep experiment=bank && python scripts/bank.py tests/data/bank    (or bank_gpt, with --sweep bank_gpt)

Writes losses.csv (a run a row) and curves.parquet: mean training losses of BLOCK updates, without the luck of single
batches that runs of one order share. The targets' curves are left out, so that no fit can have seen them. Of
`--sweep bank_far` losses alone, as far.csv: they are all targets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from proxytrain.fit.curves.curve import quieted
from proxytrain.plan import freeze
from proxytrain.store.store import Store
from proxytrain.sweep import results as outcomes

BLOCK = 32
LARGEST = 128  # width of the proxies: wider ones are targets
COLUMNS = ["run", "params", "params_total", "width", "tokens", "loss", "lr", "batch_tokens", "schedule", "init_seed"]
COLUMNS += ["data_seed", "trunk"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--store", default="runs")
    parser.add_argument("--sweep", default="bank")
    options = parser.parse_args()
    store = Store(options.store)
    records = list(freeze.load(store.sweep(options.sweep) / "plan.json").runs.values())
    options.folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(outcomes.table(store, records))[COLUMNS].sort_values(
        ["schedule", "width", "init_seed", "tokens"], ascending=[False, True, True, True]
    )
    far = options.sweep == "bank_far"
    table.round({"loss": 6}).to_csv(options.folder / ("far.csv" if far else "losses.csv"), index=False)
    if far:
        print(f"{len(table)} of {len(records)} runs")
        return
    small = set(table["run"][table["width"] <= LARGEST])
    pieces = []
    for curve in quieted(outcomes.curves(store, [r for r in records if r.id in small])):
        full = len(curve.step) // BLOCK * BLOCK
        pieces.append(
            pd.DataFrame(
                {
                    "run": curve.name,
                    "step": curve.step[:full].reshape(-1, BLOCK).mean(1).round().astype(np.int32),
                    "loss": np.exp(np.log(curve.loss[:full]).reshape(-1, BLOCK).mean(1)).astype(np.float32),
                }
            )
        )
    curves = pd.concat(pieces)
    curves["run"] = curves["run"].astype("category")
    curves.to_parquet(options.folder / "curves.parquet", index=False, compression="zstd")
    sizes = {p.name: p.stat().st_size for p in sorted(options.folder.iterdir())}
    print(f"{len(table)} of {len(records)} runs, {len(curves)} rows of curves; bytes: {sizes}")


if __name__ == "__main__":
    main()
