"""Every command and every Python block of the README and the guides runs: as it stands, made small by the words below.

A command that is new there fails until it has its words here, or the test that runs it elsewhere.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zstandard
from guides import GUIDES, ROOT, blocks, commands
from support import TINY, TINY_TEXT, proxytrain

import proxytrain as package
from proxytrain.cli.main import main
from proxytrain.cli.verbs import VERBS
from proxytrain.config.compose import conf_dir
from proxytrain.fit import LAWS, fit_losses
from proxytrain.fit.losses.laws import Law, Term
from proxytrain.store.store import Store

# Two trunks of tiny models with four endings each, which predict a longer run; all commands share what is trained.
GRID = [
    "sweep.grids=[{tokens:[8192,16384,32768,65536],init_seed:[0,1]}]",
    "sweep.target={tokens:73728}",
    "fit.law=power_in_tokens",
    "fit.allow_extrapolation=true",
    "launch.workers=1",
]
SMALL = [*TINY_TEXT, *TINY, *GRID]
ONE = [*TINY, "data.val_fraction=0.5", "data.val_tokens=2048", "sweep.grids=[]", "sweep.target=null"]
ALSO = {  # what is appended to a command, and overrides what it says
    "proxytrain verify experiment=quickstart": SMALL,
    "proxytrain sweep sweep.name=mine": [*ONE, "data.tokenizer=bytes", "launch.workers=1"],
    "proxytrain fit table=losses.csv": ["fit.bootstraps=20"],
    "proxytrain predict params=7e9 tokens=2e12": [],
    "proxytrain fit table=runs.csv": [],
    "proxytrain predict file=best.json": [],
    "proxytrain fit curves=logs": ["fit.law=progress"],
    "proxytrain predict file=curves.json": [],
    "proxytrain sweep experiment=quickstart track=wandb": SMALL,
    "proxytrain track sync": ["sweep.name=quickstart"],
    "proxytrain fit --help": [],
    "proxytrain fit compare=[a.csv,b.csv]": ["fit.law=chinchilla", "fit.bootstraps=20"],
    "proxytrain report": ["experiment=quickstart", *SMALL],
    "proxytrain sweep experiment=bpe": SMALL,
    "proxytrain sweep experiment=mup": SMALL,
    "proxytrain sweep --help": [],
    "proxytrain sweep data=files 'data.files=[texts": ONE,
    "proxytrain sweep data=files 'data.files=[/data": ["data.files=[data/part-*.jsonl.zst]", *ONE],
    "proxytrain sweep data=hub": ["data.path=dataset", "data.config=null", *ONE],
    "proxytrain sweep data=tokens": ONE,
    "proxytrain coordcheck": [*TINY_TEXT, *TINY, "coordcheck.widths=[16,32]", "coordcheck.depths=[]"],
    "proxytrain branch RUN_ID tokens=8M": ["tokens=81920", "launch.workers=1"],
    "proxytrain branch RUN_ID schedule=wsd": ["launch.workers=1"],
    "proxytrain sweep --config-dir DIR experiment=mine": [*SMALL, "sweep.name=of_a_file"],
    "proxytrain plan": [*TINY_TEXT, *TINY],
    "proxytrain probe": [*TINY_TEXT, *TINY, "sweep.name=probed"],
    "proxytrain gc": ["--dry-run"],
    "proxytrain plan experiment=quickstart": SMALL,
    "proxytrain work": ["sweep.name=quickstart"],
    "proxytrain sweep experiment=quickstart": SMALL,
}
ELSEWHERE = {  # what another test runs
    "scripts/quickstart.sh": "tests/test_packaging.py",
    "scripts/test.sh": "tests/test_packaging.py",
    ". .venv/bin/activate": "tests/test_packaging.py",
    "python scripts/bench_bank.py": "tests/fit/test_bank.py",
    "python scripts/chaos.py": "scripts/test.sh",
    "proxytrain fit wandb=": "tests/track/test_logged.py",
    "proxytrain track dashboard": "tests/track/test_dashboard.py",
    "proxytrain fit sweep.name=NAME fit.law=optimum": "tests/cli/test_cli.py",
    "proxytrain report --compare A B": "tests/report/test_compare.py",
    "proxytrain submit experiment=quickstart": "tests/slurm/test_slurm.py",
    "proxytrain status sweep.name=quickstart": "tests/slurm/test_slurm.py",
    "proxytrain cancel sweep.name=quickstart": "tests/slurm/test_slurm.py",
}
NEVER = (  # what fetches gigabytes, or needs an engine for containers
    "python3 -m venv .venv && .venv/bin/pip install torch==2.13.0",
    "pip install .",  # tests/test_packaging.py installs the wheel
    "pip install 'proxytrain[dashboard]'",
    "docker build -t proxytrain . && docker save proxytrain -o proxytrain.tar",
    "apptainer build proxytrain.sif docker-archive:proxytrain.tar",
)
TOLD = re.compile(r"proxytrain (?:sweep|fit|verify|plan) [^`(#\n]*")  # in the comments of conf/
MAY_SAY_NO = {"proxytrain coordcheck"}  # of such tiny models


def of(command: str, known: dict[str, object]) -> str | None:
    """The longest beginning of a command that is known."""
    return max((k for k in known if command.startswith(k)), key=len, default=None)


def ours(command: str) -> str:
    """What runs in a container's image is `proxytrain` itself."""
    inside = re.search(r'apptainer run (?:--nv )?proxytrain\.sif ([^"]*)', command)
    return f"proxytrain {inside[1]}" if inside else command


HERE = {path.name: [c for c in map(ours, commands(path)) if c not in NEVER and not of(c, ELSEWHERE)] for path in GUIDES}


@pytest.fixture(scope="module")
def desk(tmp_path_factory, corpora) -> Path:
    """A reader's folder: texts, tables, curves and token files of the names that the guides use, and a tiny sweep."""
    desk = tmp_path_factory.mktemp("desk")
    for folder in ("runs", "texts/deep", "data", "dataset", "owt", "logs", "DIR/experiment"):
        (desk / folder).mkdir(parents=True)
    (desk / "runs/corpora").symlink_to(corpora)
    prose = [path.read_text() for path in GUIDES]
    for i, text in enumerate(prose):
        (desk / f"texts/{i}.txt").write_text(text)
        (desk / f"texts/deep/{i}.md").write_text(text)
    parts = [p for text in prose for p in text.split("\n\n")]
    lines = pd.DataFrame({"content": parts}).to_json(orient="records", lines=True)
    (desk / "data/part-0.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    pd.DataFrame({"text": parts}).to_parquet(desk / "dataset/train.parquet")
    tokens = np.frombuffer("".join(prose).encode(), dtype=np.uint8).astype(np.uint16)
    tokens[:-8_000].tofile(desk / "owt/train.bin")
    tokens[-8_000:].tofile(desk / "owt/val.bin")
    (experiment,) = blocks(ROOT / "docs/grids.md", "yaml")
    (desk / "DIR/experiment/mine.yaml").write_text(f"# @package _global_\n{experiment}")
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e8, 3e9, 6), np.geomspace(1e10, 1e12, 5)))
    for name, lowest in (("losses", 1.8), ("a", 1.8), ("b", 1.75)):
        loss = lowest + 480 * n**-0.35 + 2100 * d**-0.37
        pd.DataFrame({"params": n, "tokens": d, "loss": loss}).to_csv(desk / f"{name}.csv", index=False)
    rates().to_csv(desk / "runs.csv", index=False)
    curves(desk / "logs")
    proxytrain("sweep", "experiment=quickstart", *SMALL, cwd=desk)
    return desk


def rates() -> pd.DataFrame:
    """Runs around lr = 30 N^-.6 D^-.3 at one batch."""
    rng = np.random.default_rng(0)
    rows = []
    for n in (1e8, 4e8, 16e8):
        for d in (2e10, 8e10, 32e10):
            for u in np.log(2) * np.arange(-3, 4):
                loss = (2 + 300 * n**-0.35 + 500 * d**-0.35) * np.exp(0.015 * u**2 + 5e-4 * rng.normal())
                lr = 3e4 * n**-0.6 * d**-0.3 * np.exp(u)
                rows.append({"params": n, "tokens": d, "lr": lr, "loss": loss, "batch_tokens": 1e6})
    return pd.DataFrame(rows)


def curves(folder: Path) -> None:
    """Two sizes under two schedules, 12,000 updates of half a million tokens."""
    rng, s = np.random.default_rng(0), np.arange(1, 12_001)
    rise, rows = np.minimum(1.0, s / 600), []
    for params in (100e6, 400e6):
        for name, lr in (("constant", rise), ("cosine", rise * (0.55 + 0.45 * np.cos(np.pi * s / len(s))))):
            loss = 2 + 0.8 * (params / 1e8) ** -0.3 + 1.2 * ((np.cumsum(lr) + 300) / 1000) ** -0.5 + 0.15 * lr**0.8
            loss = loss * (1 + 0.003 * rng.standard_normal(len(s)))
            file = f"{name}_{params:.0f}.csv"
            table = pd.DataFrame({"step": s, "lr": 1e-3 * lr, "loss": loss}).iloc[19::20]
            pd.concat([pd.DataFrame({"step": [1], "lr": [1e-3 * lr[0]]}), table]).to_csv(folder / file, index=False)
            rows.append({"file": file, "params": params, "tokens_per_step": 500_000})
    pd.DataFrame(rows).to_csv(folder / "index.csv", index=False)


def a_run(desk: Path) -> str:
    """The longest run of the sweep."""
    store = Store(desk / "runs")
    ids = [p.parent.name for p in desk.glob("runs/runs/*/result.json")]
    return max(ids, key=lambda i: (store.result(i).tokens == 65536, i))


@pytest.mark.parametrize("guide", [pytest.param(g, marks=() if g == "README.md" else pytest.mark.slow) for g in HERE])
def test_every_command_of_a_guide_runs(guide, desk, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(desk))
    for command in HERE[guide]:
        known = of(command, ALSO)
        verb, *words = shlex.split(command.removesuffix(" …"))[1:]
        if command.endswith(" …") and verb == "sweep":
            verb = "plan"  # which reads the text as a sweep does, and trains nothing
        words = [{"RUN_ID": a_run(desk)}.get(w, w) for w in words]
        code = None if known in MAY_SAY_NO else 0
        done = proxytrain(verb, *words, *ALSO[known], cwd=desk, check=code)
        assert "Traceback" not in done.stderr, command


@pytest.mark.parametrize("guide", [path.name for path in GUIDES if blocks(path, "python")])
def test_every_python_block_runs(guide, desk, monkeypatch):
    monkeypatch.chdir(desk)
    (path,) = (p for p in GUIDES if p.name == guide)
    other = np.minimum(1, np.arange(1, 12_001) / 600) * 1e-3
    given = {"run_id": a_run(desk), "other_lr": other, "proxytrain": package, "Law": Law, "Term": Term}
    for block in blocks(path, "python"):
        if block.startswith("Law("):  # a law as somebody adds it
            monkeypatch.setitem(LAWS, "mine", eval(block, given))
            assert fit_losses("losses.csv", law="mine", bootstraps=20).main.bound.law.name == "mine"
        else:
            exec(block, given)


def test_no_guide_tells_a_command_that_no_test_runs():
    assert not [f"{guide}: {c}" for guide, found in HERE.items() for c in found if not of(c, ALSO)]


def test_what_is_run_elsewhere_is_run_there():
    every = [c for path in GUIDES for c in commands(path)]
    for start, file in ELSEWHERE.items():
        assert any(c.startswith(start) for c in every), f"no guide tells `{start}` any more"
        text = (ROOT / file).read_text()
        assert start in text or f'told("{start.removeprefix("proxytrain ")}' in text, f"{file} does not run `{start}`"
    assert set(NEVER) <= set(every)
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().split()
    assert "\ndashboard = [" in (ROOT / "pyproject.toml").read_text()


def test_every_verb_and_every_package_stands_in_the_readme():
    text = (ROOT / "README.md").read_text()
    table = text.partition("| `proxytrain …` | does |")[2].partition("\n\n")[0]
    assert set(VERBS) <= {w.split()[0] for w in re.findall(r"`([^`]+)`", table)}
    packages = {p.name for p in (ROOT / "proxytrain").iterdir() if not p.name.startswith(("__", "py.typed"))}
    named = text.partition("| package | purpose |")[2]
    missing = {r for r in packages if r not in named and f"{r}/" not in named}
    assert not missing, f"the README's map lacks {missing}"


IN_CONF = {p.stem: found for p in conf_dir().glob("*/*.yaml") if (found := TOLD.findall(p.read_text()))}


@pytest.mark.parametrize("name", sorted(IN_CONF))
def test_every_command_in_a_configuration_file_composes(name, capsys):
    for line in IN_CONF[name]:
        command = line.partition("     then")[0].partition("    ")[0].partition(" && ")[0].strip()
        words = [w for w in shlex.split(command)[1:] if w != "..."]
        assert main([*words, "--cfg", "job"]) == 0, command
        assert capsys.readouterr().out
