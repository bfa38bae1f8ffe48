"""Files that were cut, flipped, edited or forged: what reads them says so in one line; nothing else is raised."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import TINY, TINY_TEXT, planned, train

from proxytrain import fit_curves, fit_losses, fit_optimum, load_fit
from proxytrain.corpus import load, prepare
from proxytrain.corpus.stream import Stream
from proxytrain.errors import Refusal, RequestError
from proxytrain.files.documents import checksum
from proxytrain.fit.curves.reading import read_curves
from proxytrain.fit.tables.table import read_runs
from proxytrain.launch import housekeeping, slurm
from proxytrain.monitor.watch import Watch
from proxytrain.plan import freeze, speed
from proxytrain.plan.claims import holder
from proxytrain.plan.parts import unfinished
from proxytrain.store.store import Store
from proxytrain.sweep import main as sweep
from proxytrain.sweep import results as outcomes
from proxytrain.sweep.request import Request, request

TRIES = 60  # files a reader
STRANGE = [None, True, -1, 0, 1e308, "", "x", "../../x", [], {}, [None], {"a": 1}, float("nan"), 2**70, "9" * 400]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file with one kind of damage: cut, bits flipped, a piece gone, doubled or strange; JSON also by its tree."""
    kind = rng.choice(["cut", "flip", "lose", "double", "strange", "tree", "tree", "tree"])
    a = rng.randrange(len(content))
    b = min(len(content), a + rng.choice([1, 4, 40, 400]))
    if kind == "tree":
        try:
            return json.dumps(changed(json.loads(content), rng)).encode()
        except ValueError:
            kind = "flip"
    return {
        "cut": content[:a],
        "flip": content[:a] + bytes(c ^ rng.randrange(1, 256) for c in content[a:b]) + content[b:],
        "lose": content[:a] + content[b:],
        "double": content[:b] + content[a:],
        "strange": content[:a]
        + rng.choice([b"nan", b"-1", b"\x00", b"\xff", b"1e999", b'"', b",,", b"\n\n"])
        + content[b:],
    }[kind]


def changed(tree: Any, rng: random.Random) -> Any:
    """A tree with one value replaced or one entry gone."""
    if isinstance(tree, dict | list) and tree and rng.random() < 0.93:
        key = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
        if rng.random() < 0.1:
            return (
                {k: v for k, v in tree.items() if k != key} if isinstance(tree, dict) else tree[:key] + tree[key + 1 :]
            )
        copy: Any = dict(tree) if isinstance(tree, dict) else list(tree)
        copy[key] = changed(tree[key], rng)
        return copy
    return rng.choice(STRANGE)


def survive(path: Path, read: Callable[[], object], tries: int = TRIES, sign: Callable[[bytes], bytes] = bytes) -> None:
    """Damage a file again and again; its reader answers, or says in one line what is wrong."""
    whole = path.read_bytes()
    read()
    try:
        for seed in range(tries):
            path.write_bytes(sign(damaged(whole, random.Random(seed))))
            said = complaint(read, f"{path.name}, seed {seed}")
            assert "\n" not in said, f"{path.name}, seed {seed}: {said}"
    finally:
        path.write_bytes(whole)


def complaint(read: Callable[[], object], what: str) -> str:
    """What the reader says is wrong; anything but the errors that end in one line fails."""
    try:
        read()
    except (RequestError, Refusal) as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    except Exception as error:
        raise AssertionError(what) from error
    return ""


def grid() -> pd.DataFrame:
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e8, 3e9, 4), np.geomspace(1e10, 1e12, 4)))
    loss = 1.8 + 480 * n**-0.35 + 2100 * d**-0.37
    return pd.DataFrame({"params": n, "tokens": d, "loss": loss, "schedule": "wsd", "init_seed": 0})


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables(tmp_path, kind):
    path = tmp_path / f"l.{kind}"
    getattr(grid(), f"to_{kind}")(path, index=False)
    survive(path, lambda: read_runs(path))
    survive(path, lambda: fit_losses(path, law="chinchilla", bootstraps=20), tries=10)


@pytest.mark.parametrize("file", ["a.csv", "index.csv"])
def test_curves(tmp_path, file):
    for name in ("a", "b"):
        step = np.arange(100, 2000, 20)
        pd.DataFrame({"step": step, "lr": 1e-3, "loss": 2 + step**-0.5}).to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "index.csv").write_text("file,params,tokens_per_step\na.csv,1e7,1000\nb.csv,2e7,1000\n")
    survive(tmp_path / file, lambda: read_curves(tmp_path))


def fits() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Each kind of fit, and what it is asked for."""
    yield "losses", fit_losses(grid(), law="chinchilla", bootstraps=20), {"params": 4e9, "tokens": 1e12}
    n, d, u = (v.ravel() for v in np.meshgrid((1e8, 4e8), (2e10, 8e10), np.log(2) * np.arange(-2, 3)))
    loss = (2 + 300 * n**-0.35 + 500 * d**-0.35) * np.exp(0.015 * u**2)
    table = {"params": n, "tokens": d, "lr": 3e4 * n**-0.6 * d**-0.3 * np.exp(u), "loss": loss}
    yield "optimum", fit_optimum(table), {"params": 4e8, "tokens": 8e10}
    step = np.arange(1, 2001)
    curves = [{"lr": np.minimum(1, step / 100) * f, "step": step[99::20]} for f in (1, 0.5 + 0.5 * np.cos(step / 700))]
    from proxytrain import Curve

    made = [Curve(**c, loss=2 + (np.cumsum(c["lr"])[c["step"] - 1]) ** -0.5) for c in curves]
    yield "curves", fit_curves(made, law="progress"), {"lr": curves[0]["lr"]}


def test_saved_fits(tmp_path):
    for name, fit, asked in fits():
        path = tmp_path / f"{name}.json"
        fit.save(path)

        def read(path: Path = path, asked: dict[str, Any] = asked) -> object:
            found = load_fit(path)
            found.summary()
            return found.predict(**asked)

        survive(path, read, tries=2 * TRIES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, corpora) -> Request:
    """A sweep with a fit, one of its runs under way."""
    root = tmp_path_factory.mktemp("fuzz") / "runs"
    root.mkdir()
    shutil.copytree(corpora, root / "corpora")
    from proxytrain.monitor.console import Console

    words = [*TINY_TEXT, *TINY, f"store={root}", "sweep.name=s", "sweep.grids=[{tokens:[4096,8192]}]"]
    asked = request(words, None, Console(quiet=True))
    train(asked, sweep.plan(asked))
    return asked


def test_plans(trained):
    path = trained.folder / "plan.json"

    def look() -> None:
        made = freeze.load(path)
        unfinished(made, trained.store)
        Watch(made, trained.store).look()
        list(housekeeping.problems(trained.store, made))

    survive(path, look, tries=2 * TRIES)
    survive(path, look, tries=4 * TRIES, sign=signed)


def signed(content: bytes) -> bytes:
    """As somebody would forge it: with a checksum that fits."""
    try:
        tree = json.loads(content)
        return json.dumps({**tree, "checksum": checksum({k: v for k, v in tree.items() if k != "checksum"})}).encode()
    except (ValueError, TypeError):
        return content


@pytest.mark.parametrize(
    "pattern",
    [
        "runs/*/result.json",
        "segments/*/*/segment.json",
        "segments/*/*/curve.npz",
        "segments/*/*/state.npy",
        "speeds.json",
        "store.json",
    ],
)
def test_files_of_a_store(trained, pattern):
    store = trained.store
    if pattern == "speeds.json":
        updates = {"x/1/eager": speed.UpdateSpeed(seconds=0.1)}
        speed.keep(store, "this, 1 thread", speed.MachineSpeed(flops=1e11, bandwidth=1e10, updates=updates))
    path = sorted(store.root.glob(pattern))[0]

    def look() -> None:
        again = Store(store.root)
        made = freeze.load(trained.folder / "plan.json")
        list(housekeeping.problems(again, made))
        Watch(made, again).look()
        columns = outcomes.table(again, trained.records)
        read_runs(columns)
        outcomes.curves(again, trained.records)
        found = speed.load(again, "this, 1 thread", "cpu")
        planned(trained)
        [found.update(p, False) for p in made.packs]
        housekeeping.collect(again, "final", dry_run=True)

    survive(path, look)


def test_claims_and_progress(trained):
    made = freeze.load(trained.folder / "plan.json")
    folder = trained.folder / "packs" / made.packs[0].id
    attempt = folder / "attempt-001-x"
    attempt.mkdir(parents=True, exist_ok=True)
    (folder / "claim").write_text(json.dumps({"host": "h", "pid": 1, "name": "x-1-1", "at": 1.0}))
    (attempt / "progress.json").write_text(json.dumps({"tokens": 1, "total": 2, "members": 1, "loss": [2.0]}))
    (folder / "failed-1.json").write_text(json.dumps({"traceback": "x", "runs": trained.ids}))

    def look() -> None:
        holder(folder)
        Watch(made, trained.store).look()

    for name in (folder / "claim", attempt / "progress.json", folder / "failed-1.json"):
        survive(name, look)
        name.unlink()


@pytest.mark.parametrize("file", ["manifest.json", "train.bin", "val.bin", "unigram.npy"])
def test_prepared_corpora(trained, file):
    folder = trained.corpus.folder

    def look() -> None:
        corpus = load(folder.parent, folder.name)
        Stream(corpus.train, 32, 0).epochs(1000)
        len(corpus.val), len(corpus.unigram)

    survive(folder / file, look)


def test_a_type_that_no_tokens_have_and_an_id_that_is_a_number(trained):
    path = trained.corpus.folder / "manifest.json"
    whole = path.read_text()
    path.write_text(json.dumps({**json.loads(whole), "dtype": "1e+308"}))
    try:
        with pytest.raises(RequestError, match="is broken: delete the folder"):
            load(path.parent.parent, path.parent.name)
    finally:
        path.write_text(whole)
    with pytest.raises(RequestError, match="0: no id of a run or a segment"):
        trained.store.segment((0, 4096))


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "jsonl.gz", "jsonl.zst", "parquet", "bin", "tokenizer.json"])
def test_texts(tmp_path, trained, suffix):
    import gzip

    import zstandard

    path = tmp_path / f"a.{suffix}"
    lines = [f"line {i} of {i * i % 97} words\n" for i in range(400)]
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(f"{i} {''.join(lines[i : i + 20])}")
    records = "".join(json.dumps({"text": line}) + "\n" for line in lines).encode()
    more: list[str] = []
    if suffix == "parquet":
        pd.DataFrame({"text": lines}).to_parquet(path)
    elif suffix == "bin":
        np.arange(4000, dtype=np.uint16).tofile(path)
        more = ["data=tokens", f"data.train=[{path}]", "data.vocab_size=5000"]
    elif suffix == "tokenizer.json":
        from tokenizers import Tokenizer, models

        Tokenizer(models.WordLevel({"line": 0, "<|endoftext|>": 1, "?": 2}, unk_token="?")).save(str(path))
        more = ["data=files", f"data.files=[{tmp_path}/*.txt]", f"data.tokenizer={path}"]
    else:
        pack = {"jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}.get(suffix, bytes)
        path.write_bytes(pack("".join(lines).encode() if suffix == "txt" else records))
    words = more or ["data=files", f"data.files=[{tmp_path}/*.{suffix}]"]
    words += ["data.val_fraction=0.2", "data.val_tokens=500"]
    from proxytrain.config.compose import compose
    from proxytrain.config.schema import Config
    from proxytrain.config.section import build

    config = build(Config, compose(words)).data
    roots = iter(range(10_000))
    survive(path, lambda: prepare(config, tmp_path / f"root{next(roots)}"), tries=20)


def test_what_slurm_says(monkeypatch, tmp_path):
    """A queue that answers anything; the command stands in for a scheduler that is ill."""
    said = tmp_path / "said"
    said.write_text("12|0|RUNNING|node1|1:00|/x/runs/sweeps/s\n13|[1-3]|PENDING||0:00|/x/runs/sweeps/s\n")
    command = tmp_path / "squeue"
    command.write_text(f"#!/bin/sh\nexec cat '{said}'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    survive(said, slurm.queue, tries=30)
