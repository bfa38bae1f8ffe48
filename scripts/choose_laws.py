"""Which laws "auto" should combine, and how wide intervals should be: decided on simulated tables, never on real ones.

    python scripts/choose_laws.py --tables 180

Fits every candidate law to each table of the population once, then scores combinations of them, and changes of the
constants of the interval, by the Winkler score of the run to predict over what a table's error is measured by.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from simulated_tables import Simulated, simulate

from proxytrain.errors import Refusal
from proxytrain.fit import LAWS
from proxytrain.fit.core.options import FitConfig
from proxytrain.fit.losses import predictor
from proxytrain.fit.losses.backtest import RunCut, assemble, fit_cuts, replay
from proxytrain.fit.losses.checks import refuse_unfit
from proxytrain.fit.losses.identify import what_is_missing
from proxytrain.fit.losses.laws import AUTO
from proxytrain.fit.losses.predictor import Member, estimate
from proxytrain.fit.tables.runs import Runs
from proxytrain.fit.tables.table import read_runs

LEVEL = 0.9
CONSTANTS = {  # of proxytrain.fit.predictor: values to try
    "PRIOR_ERROR": (0.003, 0.006, 0.01),
    "UNSEEN": (0.0, 0.006, 0.012, 0.018),
    "TIGHTEST": (0.5, 0.7, 1.0),
    "WIDEST": (1.5, 2.0, 3.0),
    "OWN_CUTS": (1.0, 2.0, 4.0),
}


@dataclass(frozen=True)
class Fitted:
    """A simulated table with every candidate law fitted to it, and to each cut of it."""

    simulated: Simulated
    runs: Runs
    members: list[Member]
    cuts: list[RunCut]


def fit_all(seed: int, laws: list[str]) -> Fitted | None:
    simulated = simulate(seed)
    runs = read_runs(simulated.table)
    try:
        refuse_unfit(runs)
    except Refusal:
        return None
    able = [LAWS[name] for name in laws if what_is_missing(LAWS[name], runs) is None]
    members = [estimate(law, runs, FitConfig(), 200, np.random.default_rng([0, 1000])) for law in able]
    return Fitted(simulated, runs, members, fit_cuts(runs, able, FitConfig(), 0))


def score(fitted: Fitted, laws: tuple[str, ...]) -> dict[str, float] | None:
    """Error, coverage and Winkler score of the run to predict, by a mixture of these laws alone."""
    members = [m for m in fitted.members if m.bound.law.name in laws]
    cuts = [replace(c, members=tuple(m for m in c.members if m.bound.law.name in laws)) for c in fitted.cuts]
    cuts = [replace(c, errors={n: e for n, e in c.errors.items() if n in laws}) for c in cuts if c.members]
    if not members:
        return None
    rows = replay(fitted.runs, cuts, LEVEL)
    asked = assemble(fitted.runs, members, np.ones(len(fitted.runs), dtype=bool), cuts, rows)
    s = fitted.simulated
    n, d = np.array([s.params]), np.array([s.tokens])
    loss, low, high, _ = asked.predict({"params": n, "tokens": d, "flops": 6 * n * d, "unique_tokens": d}, LEVEL)
    if not np.isfinite(high[0]):
        return None
    error, down, up = (float(np.log(v[0] / s.loss)) for v in (loss, low, high))
    winkler = up - down + 2 / (1 - LEVEL) * (max(down, 0.0) + max(-up, 0.0))
    return {
        "error": abs(error),
        "half": (up - down) / 2,
        "inside": float(down <= 0 <= up),
        "winkler": winkler,
        "scaled": winkler / s.scale,
    }


def line(name: str, results: list[dict[str, Any] | None]) -> str:
    seen = [r for r in results if r]
    mean = {k: np.array([r[k] for r in seen]) for k in seen[0]}
    return (
        f"{name:46s} {len(seen):4d} tables, covered {100 * mean['inside'].mean():5.1f}%, error "
        f"{100 * np.median(mean['error']):.2f} / {100 * np.percentile(mean['error'], 75):.2f}%, half-width "
        f"{100 * np.median(mean['half']):.2f}%, Winkler {100 * mean['winkler'].mean():.2f}%, scaled "
        f"{mean['scaled'].mean():.3f}"
    )


@contextmanager
def constant(name: str, value: float) -> Iterator[None]:
    before = getattr(predictor, name)
    setattr(predictor, name, value)
    try:
        yield
    finally:
        setattr(predictor, name, before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=180)
    parser.add_argument("--also", nargs="*", default=["farseer"], help="laws to try beside those of auto")
    options = parser.parse_args()
    found = [fit_all(seed, [*AUTO, *options.also]) for seed in range(options.tables)]
    fitted = [f for f in found if f]
    sets = {"auto": AUTO, "chinchilla alone": ("chinchilla",)}
    sets |= {f"auto without {law}": tuple(x for x in AUTO if x != law) for law in AUTO}
    sets |= {f"auto and {law}": (*AUTO, law) for law in options.also}
    for name, laws in sets.items():
        print(line(name, [score(f, laws) for f in fitted]), flush=True)
    for kind in sorted({f.simulated.kind for f in fitted}):
        print(line(f"auto, truth {kind}", [score(f, AUTO) for f in fitted if f.simulated.kind == kind]), flush=True)
    for layout in sorted({f.simulated.layout for f in fitted}):
        some = [f for f in fitted if f.simulated.layout == layout]
        print(line(f"auto, layout {layout}", [score(f, AUTO) for f in some]), flush=True)
    for key, values in CONSTANTS.items():
        for value in values:
            with constant(key, value):
                print(line(f"auto, {key} = {value:g}", [score(f, AUTO) for f in fitted]), flush=True)


if __name__ == "__main__":
    main()
