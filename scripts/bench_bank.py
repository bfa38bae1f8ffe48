"""Predictions held against truth hundreds of times: the fitter on sub-grids of the bank (`conf/experiment/bank.yaml`).

    python scripts/bench_bank.py [--bank tests/data/bank] [--grids 100] [--out bench_bank.json]

A sub-grid is three or more widths, three or more lengths and one to three seeds; its target is a cell of the bank at
about 3, 8 or 16 times the compute of its largest run, or at about 30 or 100 times, for which `bank_gpt` has targets of
its own (`experiment=bank_far`); the truth is every run of that cell whose seed the sub-grid has not seen.

`answer` is what `sweep` says: final losses (`auto`) and loss curves, together.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from proxytrain import Curve, Prediction, fit_curves, fit_losses
from proxytrain.config.compose import compose
from proxytrain.config.schedule import learning_rates, phases
from proxytrain.config.schema import Config
from proxytrain.config.section import build
from proxytrain.errors import Refusal
from proxytrain.fit.together import together
from proxytrain.sweep.main import CURVE_LAW

BANK = Path(__file__).parent.parent / "tests" / "data" / "bank"
GAPS = {3: (2.2, 4.2), 8: (6.5, 10.5), 16: (12.5, 20.5)}  # in 6ND, by what they are called
FAR = {30: (24.0, 42.0), 100: (56.0, 130.0)}  # the same of the targets beyond the bank
Gaps = dict[int, tuple[float, float]]
LEVEL = 0.9
LAWS = ("auto", "answer", "chinchilla", "params_at_tokens", "two_points")


@dataclass(frozen=True)
class Case:
    """A sub-grid and the cell of the bank that it has to predict."""

    gap: int
    widths: tuple[int, ...]
    lengths: tuple[int, ...]
    seeds: tuple[int, ...]
    target: tuple[int, int]  # width, tokens

    def rows(self, bank: pd.DataFrame) -> pd.DataFrame:
        inside = bank["width"].isin(self.widths) & bank["tokens"].isin(self.lengths)
        return bank[inside & bank["init_seed"].isin(self.seeds)]

    def truth(self, bank: pd.DataFrame) -> pd.DataFrame:
        width, tokens = self.target
        return bank[(bank["width"] == width) & (bank["tokens"] == tokens) & ~bank["init_seed"].isin(self.seeds)]


def read(folder: Path, schedule: str = "wsd", far: bool = False) -> pd.DataFrame:
    """The bank's final losses of one schedule, with the targets beyond it or without."""
    files = [folder / "losses.csv", *(folder.glob("far.csv") if far else [])]
    bank = pd.concat([pd.read_csv(file) for file in files])
    return bank[bank["schedule"] == schedule].reset_index(drop=True)


def grids(bank: pd.DataFrame, gaps: Gaps) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, int]]]:
    """Every gap, widths, lengths and target that the bank has: widths and lengths without holes."""
    params = bank.groupby("width")["params"].first()
    widths, lengths = list(params.index), sorted(bank["tokens"].unique())
    cells = sorted(set(zip(bank["width"], bank["tokens"])))
    runs = [w for i in range(len(widths)) for j in range(i + 3, len(widths) + 1) for w in [tuple(widths[i:j])]]
    spans = [d for i in range(len(lengths)) for j in range(i + 3, len(lengths) + 1) for d in [tuple(lengths[i:j])]]
    for w in runs:
        for d in spans:
            if not all((a, b) in cells for a in w for b in d):
                continue
            for width, tokens in cells:
                if width < w[-1] or tokens < d[-1]:
                    continue
                gap = float(params[width]) * tokens / (float(params[w[-1]]) * d[-1])
                yield from ((name, w, d, (width, tokens)) for name, (a, b) in gaps.items() if a <= gap <= b)


def cases(bank: pd.DataFrame, count: int, gaps: Gaps = GAPS, seed: int = 0) -> list[Case]:
    """`count` sub-grids at each gap, drawn so that targets, then shapes, come up alike often."""
    rng = np.random.default_rng(seed)
    every, out = list(grids(bank, gaps)), []
    seeds = np.array(sorted(bank["init_seed"].unique()))
    known = bank.groupby(["width", "tokens"])["init_seed"].agg(set)
    for gap in gaps:
        by_target: dict[tuple[int, int], list[Any]] = {}
        for grid in every:
            if grid[0] == gap:
                by_target.setdefault(grid[3], []).append(grid)
        targets, drawn = sorted(by_target), set()
        for i in range(20 * count if targets else 0):
            _, w, d, target = by_target[targets[i % len(targets)]][
                rng.integers(len(by_target[targets[i % len(targets)]]))
            ]
            some = tuple(sorted(rng.choice(seeds, 1 + i // len(targets) % 3, replace=False).tolist()))
            if known[target] - set(some):
                drawn.add(Case(gap, w, d, some, target))
            if len(drawn) == count:
                break
        out += sorted(drawn, key=repr)
    return out


def two_points(rows: pd.DataFrame, params: float, tokens: float) -> tuple[float, float, float]:
    """What a hurried person does: a power law through the smallest and the largest model, and one in length.

    The interval is that of its two (or four) means under the seed noise of the repeats, .3% where there are none, and
    of the target's own luck.
    """
    logs = rows.assign(log=np.log(rows["loss"])).groupby(["params", "tokens"])["log"]
    spread, runs = logs.var().mean(), len(rows) - logs.ngroups
    noise, freedom = (float(np.sqrt(spread)), runs) if np.isfinite(spread) else (0.003, 30)
    mean, count = logs.mean(), logs.count()
    n, d = rows["params"].unique(), rows["tokens"].unique()
    corner = (n.max(), d.max())
    centre, variance = mean[corner], 1.0 / count[corner]
    weight = 1.0
    for other, reach in (((n.min(), d.max()), params / n.max()), ((n.max(), d.min()), tokens / d.max())):
        far = float(np.log(reach) / np.log(corner[0] / other[0] if other[0] != corner[0] else corner[1] / other[1]))
        centre += far * (mean[corner] - mean[other])
        weight += far
        variance += far**2 / count[other]
    variance += (weight**2 - 1.0) / count[corner]
    half = float(student.ppf(0.5 + LEVEL / 2, freedom)) * noise * np.sqrt(1.0 + variance)
    return tuple(float(np.exp(centre + side * half)) for side in (0, -1, 1))  # type: ignore[return-value]


@cache
def rates(tokens: int) -> np.ndarray:
    """Learning rates of a run of the bank of that length."""
    config: Config = build(Config, {**compose(["experiment=bank"]), "tokens": tokens})
    batch = config.batch_tokens
    plan = phases(config.schedule, lr=config.lr, warmup=config.warmup, tokens=tokens, batch_tokens=batch)
    return learning_rates(plan, np.arange(batch, tokens + 1, batch))


@cache
def thinned(folder: Path) -> dict[str, pd.DataFrame]:
    """The bank's curves by run."""
    return dict(tuple(pd.read_parquet(folder / "curves.parquet").groupby("run", observed=True)))


def curves(rows: pd.DataFrame, folder: Path) -> list[Curve]:
    """Curves of runs of the bank, as a fit takes them."""
    out = []
    for run in rows.itertuples():
        lr, of = rates(int(run.tokens)), thinned(folder)[run.run]
        end = {"val_step": np.array([len(lr)]), "val_loss": np.array([run.loss])}
        out.append(
            Curve(lr, of["step"].to_numpy(), of["loss"].to_numpy(), float(run.params), 1024.0, name=run.run, **end)
        )
    return out


def with_curves(ends: Prediction, rows: pd.DataFrame, folder: Path, params: float, tokens: int) -> Prediction:
    """What `sweep` answers: final losses together with loss curves."""
    try:
        fitted = fit_curves(curves(rows, folder), CURVE_LAW, level=LEVEL, allow_extrapolation=True)
        return together(ends, fitted.predict(rates(tokens), params=params))
    except Refusal:
        return ends


def score(case: Case, bank: pd.DataFrame, laws: Sequence[str] = LAWS, folder: Path = BANK) -> list[dict[str, Any]]:
    """Each law's prediction against every truth: a row a law, in log loss."""
    rows, truth = case.rows(bank), case.truth(bank)
    params, tokens = float(truth["params"].iloc[0]), float(case.target[1])

    @cache
    def of(law: str) -> Prediction:
        if law == "answer":
            return with_curves(of("auto"), rows, folder, params, int(tokens))
        return fit_losses(rows, law=law, level=LEVEL).predict(params=params, tokens=tokens)

    out = []
    for law in laws:
        row: dict[str, Any] = {"law": law, "gap": case.gap, "target": f"{case.target[0]} at {tokens / 1e6:.1f}M"}
        row |= {"seeds": len(case.seeds), "widths": len(case.widths), "runs": len(rows), "refused": ""}
        try:
            if law == "two_points":
                centre, low, high = np.log(two_points(rows, params, tokens))
            else:
                centre, low, high = np.log([of(law).loss, of(law).low, of(law).high])
        except Refusal as refusal:
            out.append(row | {"refused": str(refusal)})
            continue
        at = np.log(truth["loss"].to_numpy())
        outside = np.maximum(low - at, 0) + np.maximum(at - high, 0)
        row |= {"error": float(centre - at.mean()), "half": float(high - low) / 2}
        row |= {
            "covered": float((outside == 0).mean()),
            "winkler": float((high - low + 2 / (1 - LEVEL) * outside).mean()),
        }
        out.append(row)
    return out


def summary(scores: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Answers, coverage, error, half-width and Winkler score, counted by target: each counts as one."""
    answered = scores[scores["refused"] == ""]
    cells = answered.groupby([*by, "target"] if "target" not in by else by)
    means = cells.agg(
        covered=("covered", "mean"),
        bias=("error", "mean"),
        error=("error", lambda e: e.abs().mean()),
        half=("half", "mean"),
        winkler=("winkler", "mean"),
    )
    out = 100 * (means.groupby(by).mean())
    out.insert(0, "targets", means.groupby(by).size())
    out.insert(0, "answered", answered.groupby(by).size() / scores.groupby(by).size())
    return out


def each(work: Callable[[Case], Any], items: Sequence[Case]) -> list[Any]:
    with ProcessPoolExecutor() as pool:
        return list(pool.map(work, items, chunksize=4))


def noise(bank: pd.DataFrame, pairs: int = 12) -> pd.DataFrame:
    """Seed SD in % at each (width, tokens): from all, and median and range of what the fitter says from two."""
    logs = bank.assign(log=np.log(bank["loss"])).groupby(["width", "tokens"])
    out = logs.agg(params=("params", "first"), seeds=("log", "size"), all_seeds=("log", "std"))
    rng, found = np.random.default_rng(0), []
    every = list(combinations(sorted(bank["init_seed"].unique()), 2))
    for i in rng.permutation(len(every))[:pairs]:
        luck = fit_losses(bank[bank["init_seed"].isin(every[i])], bootstraps=50).noise
        tokens = out.index.get_level_values("tokens").to_numpy()
        found.append(luck.run * luck.factor(out["params"].to_numpy(), tokens))
    out["two_seeds"], out["least"], out["most"] = np.median(found, 0), np.min(found, 0), np.max(found, 0)
    percent = ["all_seeds", "two_seeds", "least", "most"]
    return out.assign(**{c: 100 * out[c] for c in percent}).drop(columns="params")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--grids", type=int, default=100, help="at each gap")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    near, bank = read(options.bank), read(options.bank, far=True)
    chosen = [*cases(near, options.grids), *cases(bank, options.grids, FAR)]
    every = each(partial(score, bank=bank, folder=options.bank), chosen)
    scores = pd.DataFrame([row for rows in every for row in rows])
    pd.set_option("display.width", 160)
    for by in (["law"], ["law", "gap"], ["law", "seeds"], ["law", "widths"], ["law", "gap", "target"]):
        print(summary(scores, by).round(2).to_string(), "\n")
    refused = scores[scores["refused"] != ""]
    print(
        refused.groupby("law")["refused"].agg(lambda r: r.value_counts().to_dict()).to_string() if len(refused) else ""
    )
    print("\nseed noise, SD in %\n" + noise(near).round(2).to_string())
    if options.out:
        options.out.write_text(json.dumps(scores.to_dict("records"), indent=1))


if __name__ == "__main__":
    main()
