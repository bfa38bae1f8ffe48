"""The curve laws' benchmark: published curves of other schedules and sizes, seconds, and how often bands hold.

    python scripts/bench_curves.py --data ../shared/data --out bench_curves.json

Prints tables and writes all figures as JSON. A part of `scripts/bench_fit.py`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from proxytrain.fit import Curve, CurveFit, fit_curves
from proxytrain.fit.curves.laws import CURVE_LAWS
from proxytrain.fit.curves.reading import read_curves

TRAIN = ("cosine_24000", "constant_24000", "wsdcon_9")
PART = {"wsd_20000_24000": 20000, "wsdld_20000_24000": 20000, "wsdcon_3": 8000, "wsdcon_18": 8000}
WARMUP = 2160
LAWS = (*CURVE_LAWS, "auto")


def multi_power(folder: Path) -> list[dict[str, Any]]:
    """Fitted on three curves of a size, scored on six: mean absolute errors, all and after the schedules part."""
    rows = []
    for size in ("25M", "100M"):
        curves = {c.name: c for c in read_curves(folder / size)[0]}
        for law in LAWS:
            start = time.process_time()
            fit = fit_curves([curves[n] for n in TRAIN], law=law)
            seconds = time.process_time() - start
            scores = [_score(fit, c, PART.get(n, 0)) for n, c in curves.items() if n not in TRAIN]
            rows.append({"size": size, "law": law, "cpu_seconds": seconds, **_means(scores)})
    return rows


def _score(fit: CurveFit, curve: Curve, after: int) -> dict[str, float]:
    answer = fit.predict(curve.lr, params=curve.params)
    at = curve.step[curve.step > WARMUP] - 1
    loss = curve.loss[curve.step > WARMUP]
    error, late = answer.loss[at] - loss, at >= after
    half = (answer.high[at] - answer.low[at]) / 2
    return {
        "mae": float(np.abs(error).mean()),
        "mae_after_parting": float(np.abs(error[late]).mean()),
        "worst_relative": float(np.abs(error / loss).max()),
        "final_relative": float(error[-1] / loss[-1]),
        "r2": float(1 - (error**2).sum() / ((loss - loss.mean()) ** 2).sum()),
        "band_covers": float((np.abs(error) <= half).mean()),
        "final_covered": float(abs(error[-1]) <= half[-1]),
        "half_width": float(half[-1] / loss[-1]),
    }


def _means(scores: list[dict[str, float]]) -> dict[str, float]:
    out = {k: float(np.mean([s[k] for s in scores])) for k in scores[0]}
    out["worst_relative"] = max(s["worst_relative"] for s in scores)
    out["final_relative"] = float(np.mean([abs(s["final_relative"]) for s in scores]))
    return out


def schedule_curves(folder: Path) -> list[tuple[Curve, dict[str, Any]]]:
    """Validation curves of every run; the part of a WSD run before its cooldown is that of the constant run."""
    out = []
    for row in pd.read_csv(folder / "index.csv").to_dict("records"):
        table = pd.read_csv(folder / f"{row['run']}.csv")
        rates, losses = table.dropna(subset=["lr"]), table.dropna(subset=["val_loss"])
        at, lr = rates.step.to_numpy(float), rates.lr.to_numpy(float)
        if row["sched"] == "wsd" and row["frac"] == 0:
            lr = np.where(at > row["warmup"], row["lr"], lr)  # the last row logs 0
        start = [0.0, row["warmup"], at[0] - 50] if at[0] > 400 else [0.0]
        held = [row["lr"] / 100, row["lr"], row["lr"]] if at[0] > 400 else [row["lr"] / 100]
        every = np.interp(np.arange(1, row["iters"] + 1), [*start, *at], [*held, *lr])
        losses = losses[(losses.step <= row["iters"]) & (losses.step > row["warmup"])]
        embedding = row["n_embd"] * row["vocab"]
        curve = Curve(
            every, losses.step.to_numpy(), losses.val_loss.to_numpy(), row["params"] - embedding, name=row["run"]
        )
        out.append((curve, row))
    return out


def sizes(folder: Path) -> list[dict[str, Any]]:
    """Fitted on the sizes up to 60M, scored on the final validation losses of 93M and 124M."""
    curves = schedule_curves(folder)
    small = [c for c, row in curves if row["params"] < 6.1e7]
    rows = []
    for law in LAWS:
        start = time.process_time()
        fit = fit_curves(small, law=law)
        seconds = time.process_time() - start
        cells: dict[tuple[str, str, float], list[tuple[float, bool, float]]] = {}
        for curve, row in curves:
            if row["params"] < 6.1e7 or (row["sched"] == "wsd" and row["frac"] == 0):
                continue
            answer, end = fit.predict(curve.lr, params=curve.params), int(curve.step[-1]) - 1
            loss, low, high = answer.loss[end], answer.low[end], answer.high[end]
            truth = curve.loss[-1]
            found = (float(loss / truth - 1), bool(low <= truth <= high), float((high - low) / 2 / truth))
            cells.setdefault((f"{row['params'] / 1e6:.0f}M", row["sched"], row["lr"]), []).append(found)
        every = [v for values in cells.values() for v in values]
        rows.append(
            {
                "law": law,
                "cpu_seconds": seconds,
                "mean": float(np.mean([abs(e) for e, _, _ in every])),
                "median": float(np.median([abs(e) for e, _, _ in every])),
                "within_half_percent": float(np.mean([abs(e) < 0.005 for e, _, _ in every])),
                "covered": float(np.mean([c for _, c, _ in every])),
                "half_width": float(np.mean([h for _, _, h in every])),
                "cells": {" ".join(map(str, k)): float(np.mean([abs(e) for e, _, _ in v])) for k, v in cells.items()},
            }
        )
    return rows


def planted(truth: str, lr: np.ndarray, rng: np.random.Generator, shape: dict[str, float]) -> np.ndarray:
    """(S,) losses of a run by a law that is right, or not among ours, with a run's luck of .1%."""
    u = np.maximum(lr / lr.max(), 1e-12)
    rate, last = shape["rate"], 0.0
    noise = np.empty(len(u))
    for i, x in enumerate(u):
        last = last * np.exp(-rate * x) + rate * x ** (1 + shape["p"])
        noise[i] = last
    done = np.cumsum(u ** shape["q"])
    loss = 2.6 + 1.1 * (done / 3000) ** -shape["alpha"] + shape["B"] * noise
    if truth == "bent":  # progress bends in logs, and noise grows slowly
        loss += 0.02 * np.log((done + 300) / 3000) ** 2 + 0.03 * noise * np.log1p(done / 1000)
    if truth == "two speeds":  # a slow mode of noise beside the fast one
        slow, kept = np.empty(len(u)), 0.0
        for i, x in enumerate(u):
            kept = kept * np.exp(-rate / 30 * x) + rate / 30 * x ** (1 + shape["p"])
            slow[i] = kept
        loss += 0.5 * shape["B"] * slow
    return loss * (1 + 1e-3 * rng.standard_normal())


def simulate(count: int) -> list[dict[str, Any]]:
    """WSD's end from three other schedules, by laws that are right and wrong: how often the interval holds."""
    s = np.arange(1, 6001)
    rise = np.minimum(1.0, s / 300)
    decay = np.clip((s - 4800) / 1200, 0, 1)
    rates = {
        "constant": rise,
        "cosine": rise * (0.55 + 0.45 * np.cos(np.pi * s / 6000)),
        "two": rise * np.where(s > 3000, 0.3, 1.0),
    }
    rows = []
    for truth in ("right", "bent", "two speeds"):
        covered, error, half, winkler = [], [], [], []
        for i in range(count):
            rng = np.random.default_rng([i, len(truth)])
            shape = {"rate": np.exp(rng.uniform(-5, -3)), "p": rng.uniform(0.5, 1.0), "q": rng.uniform(0.5, 1.0)}
            shape |= {"alpha": rng.uniform(0.35, 0.6), "B": rng.uniform(0.08, 0.25)}
            curves = []
            for name, lr in rates.items():
                step = np.arange(300, 6001, 4)
                loss = planted(truth, lr, rng, shape)[step - 1] * (1 + _correlated(rng, len(step)))
                curves.append(Curve(lr, step, loss, name=name))
            target = planted(truth, rise * (1 - decay), rng, shape)[-1]
            loss, low, high = fit_curves(curves).predict(rise * (1 - decay)).final
            covered.append(low <= target <= high)
            error.append(abs(loss / target - 1))
            half.append((high - low) / 2 / target)
            winkler.append((high - low + 20 * max(low - target, target - high, 0)) / target)
        columns = {"covered": covered, "error": error, "half_width": half, "winkler": winkler}
        rows.append({"truth": truth, "runs": count, **{k: float(np.mean(v)) for k, v in columns.items()}})
    return rows


def _correlated(rng: np.random.Generator, n: int) -> np.ndarray:
    """Noise of 1% a row, half of whose variance neighbouring rows share."""
    own, shared, last = rng.standard_normal(n), np.empty(n), 0.0
    for i, x in enumerate(rng.standard_normal(n)):
        last = 0.9 * last + np.sqrt(1 - 0.81) * x
        shared[i] = last
    return 0.01 * np.sqrt(0.5) * (own + shared)


def show(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    for row in rows:
        cells = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items() if k != "cells"]
        print("  " + "  ".join(cells))
        for cell, error in row.get("cells", {}).items():
            print(f"      {cell}: mean |error| {100 * error:.2f}%")


def run(data: Path, simulations: int) -> dict[str, Any]:
    """All of it; parts whose curves are not there are named and left out."""
    out: dict[str, Any] = {}
    for key, folder, part in (("multi_power", "multipowerlaw", multi_power), ("sizes", "schedules", sizes)):
        if (data / "curves" / folder).is_dir():
            out[key] = part(data / "curves" / folder)
            show(f"curves/{folder}", out[key])
        else:
            print(f"{data / 'curves' / folder}: not there, left out")
    if simulations:
        out["simulated"] = simulate(simulations)
        show("simulated, 90% intervals for the end of another schedule", out["simulated"])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--simulations", type=int, default=30, help="of each truth; 0: none")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = run(options.data, options.simulations)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
