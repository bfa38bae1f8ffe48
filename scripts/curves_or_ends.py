"""What curve laws add over final losses at equal training cost, on sub-grids of the bank: error and interval width.

    python scripts/curves_or_ends.py [--bank tests/data/bank] [--cases 50] [--out curves_or_ends.json]

Of each width: (ends) the final losses of the five largest lengths with their endings, four seeds; (curves) the whole
curves of one trunk and two endings, five seeds, about the same tokens; (both) what `sweep` answers from four seeds'
losses and curves. Truth: the target's runs of other seeds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench_bank import BANK, LEVEL, curves, each, rates, read, with_curves

from proxytrain import fit_curves, fit_losses
from proxytrain.errors import Refusal

DECAY = 0.2  # of a run's length


def lengths_of(bank: pd.DataFrame) -> tuple[list[float], list[float]]:
    """In M tokens: the five largest lengths of the proxies, whose ends are used, and the two whose curves are."""
    ends = sorted((bank["tokens"][bank["width"] == bank["width"].min()] / 1e6).round(1).unique())[-5:]
    return ends, [ends[-3], ends[-1]]


def cost(lengths: Sequence[float], seeds: int) -> float:
    """M tokens of a width: the trunk, and an ending a length."""
    return seeds * (max(lengths) + DECAY * sum(d for d in lengths if d < max(lengths)))


def chosen(bank: pd.DataFrame, widths: Sequence[int], lengths: Sequence[float], seeds: Sequence[int]) -> pd.DataFrame:
    length = (bank["tokens"] / 1e6).round(1)
    return bank[bank["width"].isin(widths) & length.isin(lengths) & bank["init_seed"].isin(seeds)]


def compared(case: tuple[tuple[int, ...], int, tuple[int, ...]], folder: Path) -> list[dict[str, Any]]:
    """The three ways on one set of widths, seeds and target width at its full length, in log loss."""
    widths, target, seeds = case
    bank = read(folder)
    ends, two = lengths_of(bank)
    goal = bank[bank["width"] == target]
    goal = goal[goal["tokens"] == goal["tokens"].max()]
    truth = np.log(goal["loss"][~goal["init_seed"].isin(seeds)])
    params, tokens = float(goal["params"].iloc[0]), int(goal["tokens"].iloc[0])
    few = seeds[: max(1, round(len(seeds) * cost(two, 1) / cost(ends, 1)))]
    out = []
    for way in ("ends", "curves", "both"):
        rows = chosen(bank, widths, two, seeds) if way == "curves" else chosen(bank, widths, ends, few)
        row = {"way": way, "widths": "-".join(map(str, widths)), "target": target, "seeds": len(seeds), "refused": ""}
        try:
            if way == "curves":
                fitted = fit_curves(curves(rows, folder), level=LEVEL, allow_extrapolation=True)
                loss, low, high = fitted.predict(rates(tokens), params=params).final
            else:
                answer = fit_losses(rows, level=LEVEL).predict(params=params, tokens=tokens)
                answer = with_curves(answer, rows, folder, params, tokens) if way == "both" else answer
                loss, low, high = answer.loss, answer.low, answer.high
        except Refusal as refusal:
            out.append({**row, "refused": str(refusal)})
            continue
        outside = np.maximum(np.log(low) - truth, 0) + np.maximum(truth - np.log(high), 0)
        row |= {"error": float(np.log(loss) - truth.mean()), "half": float(np.log(high / low)) / 2}
        width = np.log(high / low) + 2 / (1 - LEVEL) * outside
        out.append({**row, "covered": float((outside == 0).mean()), "winkler": float(width.mean())})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--cases", type=int, default=50, help="at most: a minute or two of CPU each")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    bank = read(options.bank)
    rng = np.random.default_rng(0)
    seeds = np.array(sorted(bank["init_seed"].unique()))
    widths = [w for w in sorted(bank["width"].unique()) if ((bank["width"] == w).sum() > 2 * len(seeds))]
    ladders = [tuple(widths[i:j]) for i in range(len(widths)) for j in range(i + 3, min(i + 5, len(widths)) + 1)]
    params = bank.groupby("width")["params"].first()
    targets = [(w, t) for w in ladders for t in params.index if 2.2 <= params[t] / params[w[-1]] <= 20.5]
    cases = [
        (w, t, tuple(rng.choice(seeds, min(5, len(seeds) - 1), replace=False).tolist()))
        for w, t in targets
        for _ in "ab"
    ]
    cases = [cases[i] for i in sorted(rng.permutation(len(cases))[: options.cases])]
    rows = pd.DataFrame([row for rows in each(partial(compared, folder=options.bank), cases) for row in rows])
    ends, two = lengths_of(bank)
    print(f"M tokens a width: ends {cost(ends, 4):.1f}, curves {cost(two, 5):.1f}")
    answered = rows[rows["refused"] == ""].assign(size=lambda r: r["error"].abs())
    columns = {"error": "mean error", "size": "mean |error|", "half": "half-width", "covered": "covered"}
    table = (100 * answered.groupby("way")[[*columns, "winkler"]].mean()).round(2).rename(columns=columns)
    table.insert(0, "cases", answered.groupby("way").size())
    print(table.to_string())
    print((100 * answered.pivot_table(index=["widths", "target"], columns="way", values="error")).round(2).to_string())
    for text in rows["refused"][rows["refused"] != ""].unique()[:5]:
        print("refused:", text)
    if options.out:
        options.out.write_text(json.dumps(rows.to_dict("records"), indent=1))


if __name__ == "__main__":
    main()
