"""Tables with columns and cells of any kind: runs, or one line; never a traceback, never a warning of numpy."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from planted import checkpoints, runs, weight_decays

from proxytrain.errors import Refusal, RequestError
from proxytrain.fit.losses.checks import asked_for, best_settings, set_apart
from proxytrain.fit.tables.duplicates import once
from proxytrain.fit.tables.table import read_runs

NAMES = (
    *(
        "split",
        "metric",
        "run",
        "id",
        "model",
        "step",
        "_step",
        "State",
        "seed",
        "host",
        "wd",
        "loss",
        "Loss",
        "tokens",
    ),
    *("params", "flops", "lr", "batch_tokens", "unique_tokens", "schedule", "group", "trunk", "Unnamed: 0", "", "a, b"),
    *("total_steps", "data_seed", "params_total", "loss_se", "weight", "corpus"),
)
CELLS = (
    *("a", "train", "10M", "", "é\n", "finished", "crashed", None, True, [1], float("nan"), 1e400, 0, 1, 1e3, 1e9),
    *(0.1, -1.0, "1,000", "#", '"'),
)


def mixed(rng: random.Random):
    """One of three tables, some of its rows, with some columns of any cells."""
    table = rng.choice((runs, checkpoints, weight_decays))()
    table = table.sample(frac=rng.choice((1, 0.3, 0.05)), random_state=rng.randint(0, 9**6))
    for _ in range(rng.randint(0, 3)):
        some = rng.sample(CELLS, rng.randint(1, 3))
        table[rng.choice(NAMES)] = [rng.choice(some) for _ in range(len(table))]
    return table.drop(columns=[rng.choice(list(table.columns))]) if rng.random() < 0.2 else table


def damaged(table, path: Path, rng: random.Random) -> Path:
    """The table as CSV, in a third of the cases with three bytes changed."""
    table.to_csv(path, index=rng.random() < 0.3)
    content = bytearray(path.read_bytes())
    for _ in range(3 if rng.random() < 0.3 and content else 0):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("seed", range(8))
def test_any_table_is_read_or_refused_in_one_line(tmp_path, seed):
    rng, outcomes = random.Random(seed), set()
    for _ in range(60):
        table = mixed(rng)
        source = damaged(table, tmp_path / "t.csv", rng) if rng.random() < 0.5 else table
        options = {"rows": rng.choice((None, None, "runs", "last", "checkpoints")), "drop": rng.random() < 0.2}
        where = (
            {rng.choice(list(table.columns)): rng.choice(CELLS)} if len(table.columns) and rng.random() < 0.2 else {}
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found, _ = once(read_runs(source, where=where, **options))
                found, _ = best_settings(asked_for(found, None, None)[0])
                set_apart(found, "keep")
            assert np.isfinite(found.loss).all()
            outcomes.add("read")
        except (RequestError, Refusal) as error:
            outcomes.add("refused" if "\n" not in str(error) else str(error))
    assert outcomes == {"read", "refused"}
