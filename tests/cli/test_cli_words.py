"""Words of the command line: what the shell did to them, which form to type instead, and which verb uses which key."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from support import TINY, TINY_TEXT

from proxytrain.cli.main import main
from proxytrain.config.compose import compose
from proxytrain.config.overrides import read, twice
from proxytrain.errors import RequestError


def shell(line: str) -> list[str]:
    """The words that bash passes on for a line."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def value(words: list[str], key: str) -> Any:
    """What a key is set to by some words."""
    tree: Any = compose(words)
    for part in key.split("."):
        tree = tree[part]
    return tree


GRIDS = [{"model.width": [32, 64], "tokens": ["1M", "2M"]}]
TYPED = [  # as it is typed in bash, the key, what was meant
    ("'store=my (runs)'", "store", "my (runs)"),
    ("'store=a;b'", "store", "a;b"),
    ("'store=a#b&c'", "store", "a#b&c"),
    ("'store=a,b'", "store", "a,b"),
    ("store=/data/k=v", "store", "/data/k=v"),
    ("store=jürgen", "store", "jürgen"),
    ("""'store=say "x"'""", "store", 'say "x"'),
    ('''"store=it's"''', "store", "it's"),
    ("$'store=a\\nb'", "store", "a\nb"),
    ("store=backup~", "store", "backup~"),
    ("store=my runs", "store", "my runs"),
    ("'data.files=[my (1) text/*.txt]'", "data.files", ["my (1) text/*.txt"]),
    ("data.files=[my text/*.txt,more/*.md]", "data.files", ["my text/*.txt", "more/*.md"]),
    ("'data.files=[a=b/*.txt,c;d.txt,plain.txt]'", "data.files", ["a=b/*.txt", "c;d.txt", "plain.txt"]),
    ("data.files=a.txt,b.txt", "data.files", ["a.txt", "b.txt"]),
    ("'launch.setup=module load cuda; source env.sh'", "launch.setup", "module load cuda; source env.sh"),
    ("sweep.target={model:{width:128},tokens:4M}", "sweep.target", {"model": {"width": 128}, "tokens": "4M"}),
    ("sweep.target={lr:0.1,tokens:4M}", "sweep.target", {"lr": 0.1, "tokens": "4M"}),
    ("sweep.target={model:{width:64,depth:2},lr:0.1}", "sweep.target", {"model": {"width": 64, "depth": 2}, "lr": 0.1}),
    ("sweep.target={model: {width: 128}, tokens: 4M}", "sweep.target", {"model": {"width": 128}, "tokens": "4M"}),
    ("sweep.grids=[{model.width:[32,64],tokens:[1M,2M]}]", "sweep.grids", GRIDS),
    ("'fit.columns={loss:eval/loss (s)}'", "fit.columns", {"loss": "eval/loss (s)"}),
    ("“sweep.name=x”", "sweep.name", "x"),
    ("sweep.name=‘x’", "sweep.name", "x"),
    ("“sweep.target={model: {width: 128}}”", "sweep.target", {"model": {"width": 128}}),
    ("model.width 48", "model.width", 48),
    ("model.width = 48", "model.width", 48),
    ("model.width =48", "model.width", 48),
    ("model.width= 48", "model.width", 48),
    ("model.width:48", "model.width", 48),
    ("model.width==48", "model.width", 48),
    ("sweep.name=null", "sweep.name", "null"),
    ("quickstart", "sweep.name", "quickstart"),
    ("fit.columns={params:N, loss:L}", "fit.columns", {"params": "N", "loss": "L"}),
    ("losses.csv", "table", "losses.csv"),
]


@pytest.mark.parametrize(("line", "key", "meant"), TYPED, ids=[t[0] for t in TYPED])
def test_the_form_that_a_line_shows_does_what_was_meant(line: str, key: str, meant: Any):
    chosen = {"launch": ["launch=slurm"], "data": ["data=files"]}.get(key.partition(".")[0], [])
    with pytest.raises(RequestError) as caught:
        compose([*chosen, *shell(line)])
    said = str(caught.value)
    assert "\n" not in said
    form = said.replace("type ", "Type ").rpartition("Type ")[2]
    assert value([*chosen, *shell(form)], key) == meant


@pytest.mark.parametrize("typed", ["~/runs", "$HOME/runs", "${HOME}/runs"])
def test_what_the_shell_left_as_it_is_is_shown_with_quotes_in_which_it_does_not(typed: str, monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere/a (b)")
    with pytest.raises(RequestError) as caught:
        compose([f"store={typed}"])
    assert value(shell(str(caught.value).rpartition("Type ")[2]), "store") == "/somewhere/a (b)/runs"


@pytest.mark.parametrize("text", ["1e5", "007", "1_000", "true", "1.0", "inf", "1e400", "0x10", "None", "-1"])
def test_a_text_stays_as_it_is_typed(text: str):
    assert value([f"sweep.name={text}"], "sweep.name") == text
    assert value([f"++sweep.name={text}"], "sweep.name") == text
    assert value(["launch=slurm", f"launch.sbatch_args={{account:'{text}'}}"], "launch.sbatch_args.account") == text
    assert value(["data=files", f"data.files=[{text},b c,'{text}']"], "data.files") == [text, "b c", text]


def test_a_number_stays_a_number():
    assert read(["lr=1e-2", "tokens=1_000", "model.qk_norm=true", "launch.devices=[0,2]"])[:3] == [
        "lr=1e-2",
        "tokens=1_000",
        "model.qk_norm=true",
    ]


@pytest.mark.parametrize(
    "word", ["store=${sweep.name}", "sweep.name=a.b-c", "store='$HOME'", "store=a|b", "store=C:\\x"]
)
def test_what_is_clear_is_taken(word: str):
    assert read([word]) == [word]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["store="], "store=: the value is missing"),
        (["sweep.name="], "sweep.name=: the value is missing"),
        (["data=files", "data.files="], "data.files=: the value is missing"),
        (["track=wandb", "track.project=None"], "Type track.project=null"),
        (["launch.partition=gpu"], "no such key with launch=local. It is a key of launch=slurm"),
        (["model.width=[3"], "a bracket or quote is not closed"),
        (["store=~someone/runs"], "Type the full path"),
        (["lr=(0.1)"], "not understood"),
        (["nonsense"], "an override reads key=value"),
        ([""], "'': an override reads key=value"),
        (["=5"], "=5: an override reads key=value"),
        (["lr=0.1\r"], "lr=0.1\\r: ends with a carriage return"),
        (["store=runs\u00a0lr=0.1"], "contains no-break space (U+00A0)"),
        (["lr=0.1\u200b"], "contains zero width space (U+200B)"),
        (["lr=1e−3"], "Type lr=1e-3"),
        (["model=3"], "model=3: a group is chosen by name"),
        (["schedule=[wsd,cosine]"], "a group is chosen by name"),
        (["sweep.grids=[{tokens:1M]}"], "not understood. For example, type 'sweep.grids=[{"),
        (["data=files", "data.files=[a.txt],"], "not understood."),
        (["data.files=[a.txt]"], "It is a key of data=files."),
        (["sweep.target={tokens=4M}"], "not understood. For example, type 'sweep.target={"),
        (["sweep.target=model.width=128"], "'sweep.target={model:{width:128},tokens:4M}'"),
    ],
)
def test_what_has_no_form_is_named_in_one_line(words: list[str], says: str):
    with pytest.raises(RequestError) as caught:
        compose(words)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        (["sweep", "--sweep.name=x"], "sweep.name=x"),
        (["sweep", "--sweep.name", "x"], "sweep.name=x"),
        (["sweep", "-model.width=64"], "model.width=64"),
        (["train", "-model.width=64"], "model.width=64"),
        (["sweep", "—json"], "--json"),
        (["status", "–-watch"], "--watch"),
    ],
)
def test_dashes_are_put_right(arguments: list[str], form: str, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"Type {form}\n")
    assert error.count("\n") == 1


def test_a_flag_that_does_not_exist_is_one_line(capsys):
    assert main(["sweep", "--jsn"]) == 2
    assert capsys.readouterr().err == (
        "proxytrain sweep: --jsn: no such flag. `proxytrain sweep --help` lists flags and keys.\n"
    )


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["sweep.name=a", "lr=0.1", "sweep.name=b"], ["sweep.name"]),
        (["lr=0.1", "lr=0.2"], ["lr"]),  # what bash makes of lr={0.1,0.2}
        (["lr=0.1", "lr=0.1"], []),
        (["lr=0.1", "tokens=1M", "lr=0.2"], []),  # what scripts append
    ],
)
def test_a_key_that_is_typed_twice_is_reported(words: list[str], keys: list[str]):
    assert [line.partition(" ")[0] for line in twice(words)] == keys


UNUSED = [  # the override that is refused comes last
    ["status", "model.width=64"],
    ["status", "sweep.name=s", "data=prose"],
    ["status", "launch=slurm"],
    ["cancel", "sweep.name=s", "lr=0.1"],
    ["retry", "train.device=cpu"],
    ["gc", "sweep.name=s"],
    ["gc", "experiment=quickstart"],
    ["track", "sync", "fit.level=0.8"],
    ["work", "train.compile=off"],
    ["work", "train.eval_every=8M"],
    ["work", "train={precision:bfloat16}"],
    ["work", "model=plain"],
    ["work", "sweep.target={model:{width:64}}"],
    ["work", "launch.workers=4"],
    ["sweep", "table=l.csv"],
    ["sweep", "params=1e9"],
    ["plan", "file=fit.json"],
    ["plan", "verify.seeds=3"],
    ["probe", "wandb=a/b"],
    ["train", "verify.seeds=2"],
    ["train", "sweep.name=s"],
    ["branch", "0123456789abcdef", "sweep.name=s"],
    ["sweep", "coordcheck.widths=[32,64]"],
    ["report", "curves=logs"],
    ["report", "--compare", "a", "b", "sweep.name=s"],
    ["verify", "compare=[a.csv,b.csv]"],
    ["branch", "0123456789abcdef", "table=l.csv"],
    ["submit", "launch=slurm", "--dry-run", "verify.seeds=3"],
    ["coordcheck", "lr=0.1"],
    ["coordcheck", "init_seed=3"],
    ["fit", "table=l.csv", "model.width=64"],
    ["fit", "table=l.csv", "sweep.name=s"],
    ["fit", "table=l.csv", "experiment=quickstart"],
    ["fit", "table=l.csv", "fit.law=optimum", "fit.bootstraps=40"],
    ["fit", "table=l.csv", "fit.law=optimum", "params=7e9"],
    ["fit", "table=l.csv", "fit.law=critical_batch", "fit.schedule=wsd"],
    ["fit", "compare=[l.csv,l.csv]", "file=fit.json"],
    ["fit", "curves=logs", "fit.seed=3"],
    ["fit", "curves=logs", "params=7e9"],
    ["fit", "params=7e9"],
    ["predict", "table=l.csv"],
]


@pytest.mark.parametrize("arguments", UNUSED, ids=" ".join)
def test_an_override_that_a_verb_does_not_use_is_refused(arguments: list[str], tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l.csv").write_text("params,tokens,loss\n1e6,1e8,3\n")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert f": {arguments[-1]}: `proxytrain {arguments[0]}" in error
    assert "does not use it." in error
    assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["l.csv"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "experiment=quickstart"],
        ["status", "sweep={name:quickstart}"],
        ["retry", "sweep.name=quickstart", "store=runs"],
        ["work", "experiment=quickstart", "train.checkpoint_seconds=1", "train.memory=4G", "train.device=cpu"],
        ["work", "sweep.name=quickstart", "launch.stale_seconds=9", "launch.time_limit=9", "track=wandb"],
        ["work", "sweep.name=quickstart", "launch=slurm", "launch.threads=2", "launch.requeue=false"],
        ["work", "sweep.name=quickstart", "params=null"],
    ],
    ids=" ".join,
)
def test_what_a_verb_uses_is_taken(arguments: list[str], tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert "runs/sweeps/quickstart/plan.json: no such plan" in capsys.readouterr().err


def test_an_experiment_is_used_by_a_fit_where_it_sets_what_the_fit_reads(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/levels.yaml").write_text("# @package _global_\nfit: {level: 0.8}\n")
    assert main(["fit", "table=none.csv", "--config-dir", "mine", "experiment=levels"]) == 2
    assert "none.csv" in capsys.readouterr().err


def test_a_word_that_is_no_override_may_stand_anywhere(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["track", "store=S", "sync", "track.mode=offline"]) == 0
    assert capsys.readouterr().out == "no sweep in S\n"
    assert main(["branch", "--quiet", "store=S", "0123456789abcdef", "tokens=8M"]) == 2
    assert "0123456789abcdef: no such run in S" in capsys.readouterr().err


def test_the_words_of_a_sweep_serve_for_plan_and_report(store: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [*TINY_TEXT, *TINY, "sweep.name=1e5", "launch.workers=2", "track=wandb", "track.mode=offline"]
    assert main(["plan", *words]) == 0
    assert (store / "sweeps/1e5/plan.json").exists()
    assert main(["report", *words]) == 0
    assert main(["status", "sweep.name=1e5"]) == 0
    assert "1e5: 1 waiting" in capsys.readouterr().out
