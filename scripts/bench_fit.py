"""The fitter's own benchmark: published optima, speed, hold-out on published tables, coverage by simulation.

    python scripts/bench_fit.py --data ../shared/data --out bench_fit.json

Prints tables and writes all figures as JSON. Tables that are not there are left out and named.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
from pathlib import Path
from typing import Any

import bench_curves
import numpy as np
import pandas as pd
import simulated_tables

from proxytrain.analysis.critical_batch import fit_critical_batch
from proxytrain.errors import Refusal
from proxytrain.fit import LAWS, fit_losses
from proxytrain.fit.losses.bound import bind
from proxytrain.fit.losses.estimate import ROUGH, Problem, grid_starts, polish, project, solve
from proxytrain.fit.tables.table import read_runs

COLUMNS = ["params", "tokens", "loss"]
FRESH = 100_000  # simulated tables from here on; `choose_laws.py` uses the first ones
LEVEL = 0.9


def final_tables(data: Path) -> dict[str, pd.DataFrame]:
    """Every table of final losses in the folder, as params, tokens, loss of single-epoch runs at good settings."""
    losses, out = data / "losses", {}
    out["chinchilla"] = pd.read_csv(losses / "chinchilla_epoch.csv")
    for corpus, table in pd.read_csv(losses / "gadre.csv").groupby("corpus"):
        out[f"gadre {corpus}"] = table
    out["olmo ladder"] = pd.read_csv(losses / "olmo_ladder_c4.csv").rename(columns={"params_nonembedding": "params"})
    table = pd.read_csv(losses / "datablations.csv")
    out["datablations, one epoch"] = table[table.epochs <= 1.01]
    table = pd.read_csv(data / "optimum" / "steplaw_dense.csv").rename(columns={"params_nonembedding": "params"})
    out["step law, best of each"] = table.loc[table.groupby(["params", "tokens"]).loss.idxmin()]
    index = pd.read_csv(data / "curves" / "schedules" / "index.csv")
    index["tokens"] = 1.0 * index.iters * index.bs * index.acc * index.ws * index.seq
    index["loss"] = index.final_val
    wsd = (index.sched == "wsd") & (index.frac == 0.2) & (index.decay.isna() | (index.decay == "linear"))
    keep = (index.lr >= 0.001) & (((index.sched == "cos") & index.decay.isna()) | wsd) & np.isfinite(index.loss)
    for schedule, table in index[keep].groupby("sched"):
        out[f"schedules {schedule}"] = table.loc[table.groupby(["params", "tokens"]).loss.idxmin()]
    return {name: table[COLUMNS].astype(float).reset_index(drop=True) for name, table in out.items()}


def chinchilla(path: Path) -> dict[str, Any]:
    """The published Huber optimum: objective, parameters, time, starts, bootstrap."""
    runs = read_runs(path)
    bound, ones = bind(LAWS["chinchilla"], runs), np.ones(len(runs))
    problem = Problem(bound.form, bound.design(runs.columns), np.log(runs.loss), 1e-3, *bound.bounds)
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        theta, values = polish(grid_starts(bound, problem, ones), problem, ones)
        seconds.append(time.perf_counter() - begin)
    best = theta[values.argmin()]
    rng = np.random.default_rng(0)
    _, random = polish(project(bound, problem, ones, rng.uniform(0.05, 1.5, (200, 2))), problem, ones)
    begin = time.perf_counter()
    counts = rng.multinomial(len(runs), ones / len(runs), size=4000).astype(float)
    draws, _ = polish(np.tile(best, (4000, 1)), problem, counts, tolerance=ROUGH)
    return {
        "objective": float(values.min()),
        "params": dict(zip(bound.names, bound.natural(best).tolist())),
        "seconds": min(seconds),
        "random_starts_at_optimum": float((random <= values.min() * (1 + 1e-6)).mean()),
        "bootstrap_seconds": time.perf_counter() - begin,
        "stderr": dict(zip(bound.names, bound.natural(draws).std(0).tolist())),
    }


def gadre(path: Path) -> dict[str, float]:
    """Five RedPajama runs predict two larger ones (arXiv 2403.08540: 0.71% and 0.73%); least squares on the loss."""
    table = pd.read_csv(path)
    table = table[table.corpus == "rpj"]
    multiple = table.chinchilla_multiple  # of 20 tokens per parameter
    small = (table.params < 5e8) & ((multiple == 1) | ((multiple == 16) & (table.params < 2e7)))
    out = {}
    for name, weight, delta in (("least squares", table.loss**2, 0.5), ("huber", table.loss * 0 + 1, None)):
        five = table[small].assign(weight=weight)[[*COLUMNS, "weight"]]
        fit = fit_losses(five, law="tied", delta=delta, allow_extrapolation=True)
        for size, m in ((1.4e9, 32), (6.9e9, 1)):
            run = table[(abs(table.params / size - 1) < 0.1) & (multiple == m)].iloc[0]
            out[f"{name}, {size:.2g} at M={20 * m}"] = fit.predict(run.params, run.tokens).loss / run.loss - 1
    return out


EVERY = [
    "chinchilla",
    "tied",
    "interaction",
    "kaplan",
    "kaplan_no_floor",
    "joined",
    "farseer",
    "params_at_tokens",
    "auto",
]


def farseer(path: Path) -> dict[str, Any]:
    """Nine parameters from 256 starts (ten Newton steps each, the 24 that lead to the end), in seconds of CPU."""
    runs = read_runs(path)
    bound, ones = bind(LAWS["farseer"], runs), np.ones(len(runs))
    problem = Problem(bound.form, bound.design(runs.columns), np.log(runs.loss), 1e-3, *bound.bounds)
    out: dict[str, Any] = {"rows": len(runs)}
    for name, keep in (("seconds", 24), ("seconds, all 256 to the end", 256)):
        spent = []
        for _ in range(3):
            begin = time.process_time()
            _, values = solve(bound, problem, ones, 256, keep)
            spent.append(time.process_time() - begin)
        out[name] = min(spent)
    out["objective"] = float(values.min())
    out["starts_at_optimum"] = float((values <= values.min() * (1 + 1e-6)).mean())
    return out


def every_law(tables: dict[str, pd.DataFrame], gap: float) -> list[dict[str, Any]]:
    """Each law on each table: mean |log residual| of all runs, and mean |log error| of those held out at a gap."""
    rows = []
    for name, table in tables.items():
        for law in EVERY:
            row: dict[str, Any] = {"table": name, "gap": gap, "law": law}
            try:
                row["inside"] = float(np.abs(fit_losses(table, law=law, bootstraps=20).residuals).mean())
                row |= holdout({name: table}, [law], (gap,), 20)[0]
            except (Refusal, IndexError) as refusal:
                row["refused"] = str(refusal) or "too few runs"
            rows.append(row)
    return rows


def splits(losses: Path) -> dict[str, dict[str, str]]:
    """The best split by each approach: Chinchilla's budget on its digitised runs, and others at their largest."""
    out = {}
    fit = fit_losses(losses / "chinchilla_epoch.csv", law="chinchilla", bootstraps=200, allow_extrapolation=True)
    out["chinchilla, 5.76e23"] = {by: str(fit.optimal(5.76e23, by=by)) for by in ("parametric", "isoflop", "envelope")}
    for corpus, table in pd.read_csv(losses / "gadre.csv").groupby("corpus"):
        found = fit_losses(table[COLUMNS], law="chinchilla", bootstraps=200).allocation
        out[f"gadre {corpus}, largest run"] = {by: str(answer) for by, answer in found.items()}
    table = pd.read_csv(losses / "datablations.csv")
    found = fit_losses(table[table.epochs <= 1.01][COLUMNS], law="chinchilla", bootstraps=200).allocation
    out["datablations, largest run"] = {by: str(answer) for by, answer in found.items()}
    return out


def offsets(data: Path) -> list[dict[str, Any]]:
    """One schedule's largest runs predicted from its smaller ones, alone and with another schedule's at an offset."""
    index = pd.read_csv(data / "curves" / "schedules" / "index.csv")
    index["tokens"] = 1.0 * index.iters * index.bs * index.acc * index.ws * index.seq
    index["loss"], index["schedule"] = index.final_val, index.sched
    wsd = (index.sched == "wsd") & (index.frac == 0.2) & (index.decay.isna() | (index.decay == "linear"))
    keep = (index.lr >= 0.001) & (((index.sched == "cos") & index.decay.isna()) | wsd) & np.isfinite(index.loss)
    both = index.loc[index[keep].groupby(["schedule", "params", "tokens"]).loss.idxmin(), [*COLUMNS, "schedule"]]
    rows = []
    for target in ("wsd", "cos"):
        own = both[both.schedule == target]
        largest = (own.params * own.tokens).max()
        test = own[own.params * own.tokens >= largest / 2]
        for gap in (3, 6):
            for name, table in (("alone", own), ("with the other", both)):
                train = table[table.params * table.tokens <= largest / gap * 1.0001]
                fit = fit_losses(train, schedule=target, bootstraps=200, allow_extrapolation=True)
                p = fit.predict(test.params.to_numpy(), test.tokens.to_numpy())
                row = {"table": f"{target} {name}", "gap": gap, "law": "auto", "trained_on": len(train)}
                row |= score(p.loss, p.low, p.high, test.loss.to_numpy())
                rows.append(row | {k: [v, fit.stderr[k]] for k, v in fit.params.items() if k.startswith("offset")})
    return rows


def groups(path: Path) -> dict[str, Any]:
    """Do the three corpora of Gadre et al. share their exponents?"""
    table = pd.read_csv(path).rename(columns={"corpus": "group"})[[*COLUMNS, "group"]]
    fit = fit_losses(table, law="shared_exponents", bootstraps=200)
    return {"params": fit.params, "stderr": fit.stderr, "test": fit.data.own_exponents}


def score(loss: np.ndarray, low: np.ndarray, high: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean |error|, coverage, half-width and Winkler score of predictions, in log loss."""
    outside = np.maximum(np.maximum(np.log(low / truth), np.log(truth / high)), 0.0)
    width = np.log(high / low)
    return {
        "error": float(np.abs(np.log(loss / truth)).mean()),
        "covered": float(((low <= truth) & (truth <= high)).mean()),
        "half": float(width.mean() / 2),
        "winkler": float((width + 2 / (1 - LEVEL) * outside).mean()),
    }


def holdout(
    tables: dict[str, pd.DataFrame], laws: list[str], gaps: tuple[float, ...], bootstraps: int = 200
) -> list[dict[str, Any]]:
    """Train on runs at most 1/gap of the largest compute; score on those within 3x of the largest."""
    rows = []
    for name, table in tables.items():
        compute = (table.params * table.tokens).to_numpy()
        for gap in gaps:
            train, test = table[compute <= compute.max() / gap * 1.0001], table[compute >= compute.max() / 3]
            if len(train) < 4:
                continue
            for law in laws:
                row: dict[str, Any] = {"table": name, "gap": gap, "law": law, "trained_on": len(train)}
                try:
                    fit = fit_losses(train, law=law, bootstraps=bootstraps, level=LEVEL, allow_extrapolation=True)
                    p = fit.predict(test.params.to_numpy(), test.tokens.to_numpy())
                    row |= score(p.loss, p.low, p.high, test.loss.to_numpy())
                except Refusal as refusal:
                    row["refused"] = str(refusal)
                rows.append(row)
    return rows


TRUTHS = {
    "chinchilla": lambda n, d: 0.75 + 40 * n**-0.42 + 90 * d**-0.40,
    "joined by a power": lambda n, d: 0.7 + (60 * n**-0.5 + 40 * d**-0.36) ** 0.8,
    "bent": lambda n, d: (
        (0.75 + 40 * n**-0.42 + 90 * d**-0.40)
        * (1 + 0.004 * np.log(n / 3e4) * np.log(d / 1e6) - 0.003 * np.log(n / 5e4) ** 2)
    ),
    "exponent depends on size": lambda n, d: (
        0.7 + np.exp(4.2 - 0.378 * np.log(n)) + np.exp(4.0 + 0.02 * np.log(n)) * d ** -(0.30 + 0.006 * np.log(n))
    ),
}


def sweep(truth: Any, seed: int, sd: float = 0.002) -> tuple[dict[str, np.ndarray], float, float, float]:
    """Five widths x four lengths on shared trunks x two seeds, with the luck they share; the target at 4x params."""
    rng = np.random.default_rng([seed, 17])
    order, init, own = np.array([0.5, 0.6, 0.6]) * sd / np.sqrt(0.97)
    shared, rows = rng.normal(0, order, 2), []
    for width in (24, 32, 48, 64, 80):
        for s in range(2):
            trunk = rng.normal(0, init)
            for d in (0.5e6, 1e6, 2e6, 4e6):
                n = 24.0 * width**2
                rows.append((n, d, truth(n, d) * np.exp(shared[s] + trunk + rng.normal(0, own)), s, f"{width}-{s}"))
    names = ("params", "tokens", "loss", "data_seed", "trunk")
    n, d = 4 * 24.0 * 80**2, 4e6
    return {k: np.array(v) for k, v in zip(names, zip(*rows))}, n, d, float(truth(n, d) * np.exp(rng.normal(0, sd)))


def population(laws: list[str], count: int) -> list[dict[str, Any]]:
    """Tables of `simulated_tables` that no choice was made on: laws right and wrong, planted misfit, shared luck."""
    rows = []
    for seed in range(FRESH, FRESH + count):
        s = simulated_tables.simulate(seed)
        for law in laws:
            row: dict[str, Any] = {"truth": s.kind, "layout": s.layout, "gap": s.gap, "law": law}
            try:
                fit = fit_losses(s.table, law=law, bootstraps=200, level=LEVEL, allow_extrapolation=True)
                p = fit.predict(s.params, s.tokens)
                row |= score(*(np.array([v]) for v in (p.loss, p.low, p.high, s.loss)))
                row["scaled"] = row["winkler"] / s.scale
            except Refusal as refusal:
                row["refused"] = str(refusal)
            rows.append(row)
    return rows


def by(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """Means of the figures for each value of a key, and over all."""
    out = {}
    for law in dict.fromkeys(r["law"] for r in rows):
        for value in [*sorted({r[key] for r in rows}), "all"]:
            used = [r for r in rows if r["law"] == law and value in (r[key], "all") and "error" in r]
            if used:
                mean = {
                    k: float(np.mean([r[k] for r in used])) for k in ("error", "covered", "half", "winkler", "scaled")
                }
                out[f"{law}, {value}"] = {"tables": len(used), **mean}
    return out


def simulate(laws: list[str], count: int) -> list[dict[str, Any]]:
    """Coverage of the target of a quickstart-like sweep, under right and wrong laws."""
    rows = []
    for name, truth in TRUTHS.items():
        for law in laws:
            results = []
            for seed in range(count):
                table, n, d, loss = sweep(truth, seed)
                p = fit_losses(table, law=law, bootstraps=150, level=LEVEL).predict(n, d)
                results.append(score(*(np.array([v]) for v in (p.loss, p.low, p.high, loss))))
            mean = {k: float(np.mean([r[k] for r in results])) for k in results[0]}
            rows.append({"truth": name, "law": law, "sweeps": count, **mean})
            show(rows[-1:])
    return rows


def batch_curves(seed: int, batches: tuple[float, ...], sd: float, shift: float) -> dict[str, np.ndarray]:
    """Loss curves on L = 1.6 + (3000 / S_min)^.6 with B_crit = 1.7e8 / L^(1/.205), with noise of rows and of runs."""
    rng, rows = np.random.default_rng(seed), []
    for batch in batches:
        steps = np.arange(50.0, 60001 if batch < 2e6 else 30001, 50)
        low, high = np.full(len(steps), 1.6), np.full(len(steps), 19.0)
        for _ in range(60):
            middle = (low + high) / 2
            with np.errstate(divide="ignore"):
                late = 3e3 * (middle - 1.6) ** (-1 / 0.6) * (1 + 1.7e8 * middle ** (-1 / 0.205) / batch) > steps
            low, high = np.where(late, middle, low), np.where(late, high, middle)
        luck = sd * rng.standard_normal(len(steps)) + shift * rng.standard_normal()
        rows.append(np.c_[np.full(len(steps), batch), steps, high * np.exp(luck)])
    return dict(zip(("batch_tokens", "step", "loss"), np.concatenate(rows).T))


def critical(count: int) -> list[dict[str, Any]]:
    """Coverage of the 90% intervals of B*, alpha_B and B_crit at a loss of 3, and how wide the last is."""
    out, truth = [], {"b_star": 1.7e8, "alpha_b": 0.205}
    for batches in ((1e5, 3e5, 1e6, 3e6, 1e7), (2e5, 1e6, 5e6)):
        for sd, shift in ((0.003, 0.0), (0.003, 0.002), (0.01, 0.0)):
            inside, wide, begin = [], [], time.process_time()
            for seed in range(count):
                fit = fit_critical_batch(batch_curves(seed, batches, sd, shift), level=LEVEL)
                _, low, high = fit.critical_batch(3.0)
                hits = [fit.intervals[k][0] < v < fit.intervals[k][1] for k, v in truth.items()]
                inside.append([*hits, low < 1.7e8 * 3.0 ** (-1 / 0.205) < high])
                wide.append(high / low)
            row = {"batches": len(batches), "row_noise": sd, "run_noise": shift, "fits": count}
            row |= dict(zip(("b_star", "alpha_b", "b_crit"), np.mean(inside, axis=0).tolist()))
            out.append(row | {"width": float(np.median(wide)), "seconds": (time.process_time() - begin) / count})
            print("  critical batch:", json.dumps(out[-1]), flush=True)
    return out


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        figures = {k: f"{100 * row[k]:6.2f}%" for k in ("inside", "error", "half", "winkler") if k in row}
        label = " ".join(str(row[k]) for k in ("table", "truth", "gap", "law") if k in row)
        inside = f"covered {100 * row['covered']:4.0f}%" if "covered" in row else f"refused: {row['refused'][:60]}"
        print(f"  {label:52s} {inside} " + " ".join(f"{k} {v}" for k, v in figures.items()), flush=True)


def summary(rows: list[dict[str, Any]], least: float = 10) -> dict[str, Any]:
    """Over cases at gaps of 10x and more that every law answers; coverage is averaged within a table first."""
    out = {}
    answered = [
        {(r["table"], r["gap"]) for r in rows if r["law"] == law and "error" in r} for law in {r["law"] for r in rows}
    ]
    both = set.intersection(*answered)
    for law in dict.fromkeys(r["law"] for r in rows):
        used = [r for r in rows if r["law"] == law and r["gap"] >= least and (r["table"], r["gap"]) in both]
        tables = sorted({r["table"] for r in used})
        errors, winkler = [r["error"] for r in used], [r["winkler"] for r in used]
        out[law] = {
            "cases": len(used),
            "error_median": float(np.median(errors)),
            "error_p75": float(np.percentile(errors, 75)),
            "error_mean": float(np.mean(errors)),
            "winkler_median": float(np.median(winkler)),
            "winkler_p75": float(np.percentile(winkler, 75)),
            "winkler_mean": float(np.mean(winkler)),
            "covered_by_table": float(
                np.mean([np.mean([r["covered"] for r in used if r["table"] == t]) for t in tables])
            ),
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("bench_fit.json"))
    parser.add_argument("--sweeps", type=int, default=40, help="simulated sweeps a law and truth")
    parser.add_argument("--tables", type=int, default=90, help="simulated tables of the population")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    if (options.data / "losses").is_dir():
        figures["chinchilla"] = chinchilla(options.data / "losses" / "chinchilla_epoch.csv")
        print("chinchilla:", json.dumps(figures["chinchilla"], indent=2))
        figures["gadre"] = gadre(options.data / "losses" / "gadre.csv")
        print("gadre:", {k: f"{100 * v:.2f}%" for k, v in figures["gadre"].items()})
        figures["farseer"] = farseer(options.data / "losses" / "chinchilla_epoch.csv")
        print("farseer:", json.dumps(figures["farseer"], indent=2))
        fit = fit_losses(options.data / "losses" / "datablations.csv", law="data_constrained", bootstraps=20)
        figures["data_constrained"] = {"objective": fit.objective, "params": fit.params}
        print("data-constrained (published objective .0158259):", json.dumps(figures["data_constrained"]))
        figures["groups"] = groups(options.data / "losses" / "gadre.csv")
        print("one shape for three corpora:", json.dumps(figures["groups"], indent=2))
        figures["splits"] = splits(options.data / "losses")
        print("best split:", json.dumps(figures["splits"], indent=2))
        figures["offsets"] = offsets(options.data)
        show(figures["offsets"])
        figures["every_law"] = every_law(final_tables(options.data), 10)
        show(figures["every_law"])
        laws = ["chinchilla", "auto"]
        figures["holdout"] = holdout(final_tables(options.data), laws, (3, 10, 30, 100))
        show(figures["holdout"])
        figures["holdout_summary"] = summary(figures["holdout"])
        print(json.dumps(figures["holdout_summary"], indent=2))
    else:
        print(f"{options.data}: published tables are not at hand; simulation only")
    figures["critical_batch"] = critical(options.sweeps)
    figures["population"] = population(["chinchilla", "auto"], options.tables)
    for key in ("truth", "layout"):
        figures[f"population_by_{key}"] = by(figures["population"], key)
        for name, mean in figures[f"population_by_{key}"].items():
            print(f"  {name:40s}", " ".join(f"{k} {v:.4g}" for k, v in mean.items()))
    figures["simulation"] = simulate(["chinchilla", "params_at_tokens", "auto"], options.sweeps)
    figures["curves"] = bench_curves.run(options.data, options.sweeps // 2)
    options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
