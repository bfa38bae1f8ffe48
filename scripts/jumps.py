"""Curves with a jump that came by itself, as a small file that the tests read: plain GPTs on whole files of code.

    at=$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')    # with its tests: 31 MB of Python
    proxytrain sweep sweep.name=jumps model=plain model.depth=4 model.context=128 lr=.016 warmup=102400 \\
      batch_tokens=1024 data=files "data.files=['$at/*.py','$at/[!s]*/**/*.py']" data.unit=document \\
      data.tokenizer=bpe data.val_fraction=.02 sweep.target=null \\
      'sweep.grids=[{model.width:[32,64],tokens:4M,init_seed:[0,1]},{model.width:96,tokens:5M}]'
    python scripts/jumps.py tests/data/jumps.parquet [--store runs]

Writes learning rate and training loss of every update, and prints what jumps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from proxytrain import Store
from proxytrain.fit.curves.jumps import jump
from proxytrain.plan import freeze
from proxytrain.sweep import results as outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--store", default="runs")
    parser.add_argument("--sweep", default="jumps")
    options = parser.parse_args()
    store, pieces = Store(options.store), []
    for record in freeze.load(store.sweep(options.sweep) / "plan.json").runs.values():
        (curve,) = outcomes.curves(store, [record])
        width, seed = record.config.model.width, record.config.init_seed
        print(f"width {width}, seed {seed}, loss {curve.loss[-200:].mean():.3f} at the end: {jump(curve) or 'no jump'}")
        columns = {"lr": curve.lr.astype(np.float32), "loss": curve.loss.round(3).astype(np.float32)}
        pieces.append(pd.DataFrame({"width": np.int16(width), "seed": np.int16(seed), **columns}))
    pd.concat(pieces).to_parquet(options.file, index=False, compression="zstd")


if __name__ == "__main__":
    main()
