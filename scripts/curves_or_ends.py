"""What curve laws add over final losses at equal training cost, on sub-grids of the bank: error and interval width.

    python scripts/curves_or_ends.py [--bank tests/data/bank] [--cases 50] [--out curves_or_ends.json]

Of each width: (ends) the final losses of the five largest lengths with their endings, four seeds; (curves) the whole
curves of one trunk and two endings, five seeds, about the same tokens; (both) four seeds, the mean of the two
predictions by their precision. Truth: the target's runs of other seeds.
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
from bench_bank import BANK, LEVEL, each, read

from proxytrain import Curve, fit_curves, fit_losses
from proxytrain.compose import compose
from proxytrain.config import Config, build
from proxytrain.errors import Refusal
from proxytrain.schedule import learning_rates, phases

DECAY = 0.2  # of a run's length


def rates(tokens: int) -> np.ndarray:
    """Learning rates of a bank run of that length."""
    config: Config = build(Config, {**compose(["experiment=bank"]), "tokens": int(tokens)})
    batch = config.batch_tokens
    plan = phases(config.schedule, lr=config.lr, warmup=config.warmup, tokens=int(tokens), batch_tokens=batch)
    return learning_rates(plan, np.arange(batch, tokens + 1, batch))


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


def from_ends(rows: pd.DataFrame, params: float, tokens: float) -> tuple[float, float]:
    """Log loss and half-width."""
    answer = fit_losses(rows, level=LEVEL).predict(params=params, tokens=tokens)
    return float(np.log(answer.loss)), float(np.log(answer.high / answer.low)) / 2


def from_curves(rows: pd.DataFrame, curves: pd.DataFrame, params: float, tokens: float) -> tuple[float, float]:
    given = []
    for run in rows.itertuples():
        of = curves[curves["run"] == run.run]
        lr = rates(run.tokens)
        end = {"val_step": np.array([len(lr)]), "val_loss": np.array([run.loss])}
        one = Curve(lr, of["step"].to_numpy(), of["loss"].to_numpy(), float(run.params), 1024.0, name=run.run, **end)
        given.append(one)
    answer = fit_curves(given, level=LEVEL, allow_extrapolation=True).predict(rates(int(tokens)), params=params)
    loss, low, high = answer.final
    return float(np.log(loss)), float(np.log(high / low)) / 2


def compared(case: tuple[tuple[int, ...], int, tuple[int, ...]], folder: Path) -> list[dict[str, Any]]:
    """The three ways on one set of widths, seeds and target width at its full length."""
    widths, target, seeds = case
    bank, curves = read(folder), pd.read_parquet(folder / "curves.parquet")
    ends, two = lengths_of(bank)
    goal = bank[bank["width"] == target]
    goal = goal[goal["tokens"] == goal["tokens"].max()]
    truth = np.log(goal["loss"][~goal["init_seed"].isin(seeds)])
    params, tokens = float(goal["params"].iloc[0]), float(goal["tokens"].iloc[0])
    few = seeds[: max(1, round(len(seeds) * cost(two, 1) / cost(ends, 1)))]
    answers: dict[str, tuple[float, float] | str] = {}
    for way, given in (("ends", few), ("curves", seeds), ("curves of fewer", few)):
        try:
            if way == "ends":
                answers[way] = from_ends(chosen(bank, widths, ends, given), params, tokens)
            else:
                answers[way] = from_curves(chosen(bank, widths, two, given), curves, params, tokens)
        except Refusal as refusal:
            answers[way] = str(refusal)
    a, b = answers["ends"], answers.pop("curves of fewer")
    if isinstance(a, tuple) and isinstance(b, tuple):
        weight = a[1] ** -2 / (a[1] ** -2 + b[1] ** -2)
        answers["both"] = tuple(weight * x + (1 - weight) * y for x, y in zip(a, b))  # type: ignore[assignment]
    out = []
    for way, answer in answers.items():
        row = {"way": way, "widths": "-".join(map(str, widths)), "target": target, "seeds": len(seeds)}
        if isinstance(answer, str):
            out.append({**row, "refused": answer})
            continue
        centre, half = answer
        outside = np.maximum(np.abs(centre - truth) - half, 0)
        row |= {"error": centre - float(truth.mean()), "half": half, "covered": float((outside == 0).mean())}
        out.append({**row, "refused": "", "winkler": float((2 * half + 2 / (1 - LEVEL) * outside).mean())})
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
