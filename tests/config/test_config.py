"""What may be asked: numbers, groups, and one helpful line for what may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxytrain.config.compose import compose, conf_dir, group_loader
from proxytrain.config.overrides import quoted
from proxytrain.config.schema import build_config
from proxytrain.errors import RequestError
from proxytrain.plan.grid import expand, point
from proxytrain.plan.runs import Run, run_of
from proxytrain.types import parse_number

GROUPS = [p for p in sorted(conf_dir().glob("*/*.yaml")) if p.parent.name != "experiment"]
EXPERIMENTS = sorted(conf_dir().glob("experiment/*.yaml"))


@pytest.mark.parametrize("text", ["4000000", "4e6", "4M", "4_000_000", "4.0M", "4000K", "0.004G"])
def test_numbers_read_alike(text):
    assert build_config(compose([f"tokens={text}"])).tokens == 4_000_000


def test_a_number_is_a_number_and_nothing_else():
    assert [parse_number(x) for x in ("2.01M", "1.1M", "1e3K", "1_000.5k")] == [
        2_010_000,
        1_100_000,
        1_000_000,
        1_000_500,
    ]
    assert [parse_number(x) for x in ("1e-2", 3, True, "", "M", "4X", None)] == [0.01, 3, None, None, None, None, None]


@pytest.mark.parametrize("path", GROUPS, ids=lambda p: f"{p.parent.name}={p.stem}")
def test_every_option_of_every_group_composes(path):
    extra = ["data.files=[x.txt]"] if path.stem == "files" else []
    extra += ["data.train=[x.bin]", "data.vocab_size=100"] if path.stem == "tokens" else []
    extra += ["data.path=x", "data.max_bytes=1M"] if path.stem == "hub" else []
    chosen = [f"{path.parent.name}={path.stem}", *extra]
    build_config(compose(chosen))
    for experiment in ("quickstart", "bpe", "cpu_hour", "gpu_hour"):  # which bring a text and a model of their own
        build_config(compose([f"experiment={experiment}", *chosen]))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_every_experiment_composes_and_expands_at_every_scale(path):
    assert compose([f"experiment={path.stem}"])["sweep"]["name"] == path.stem
    small, large = (runs(f"experiment={path.stem}", f"scale={scale}") for scale in ("cpu", "gpu"))
    assert len(large) == len(small) > 0
    for a, b in zip(small, large):
        assert (b.recipe.model.width, b.recipe.batch_tokens) == (8 * a.recipe.model.width, 32 * a.recipe.batch_tokens)
        assert b.tokens > 50 * a.tokens
        assert (b.recipe.precision, b.recipe.init_seed, b.lr) == ("bfloat16", a.recipe.init_seed, a.lr)


@pytest.mark.parametrize("path", [*GROUPS, *EXPERIMENTS], ids=lambda p: f"{p.parent.name}={p.stem}")
def test_every_option_begins_with_what_it_is_for(path):
    lines = [line for line in path.read_text().splitlines() if line != "# @package _global_"]
    assert len(lines[0]) > 15
    assert lines[0].startswith("# ")


WRONG = [
    (["model.widht=3"], "model.widht: no such key (did you mean model.width?)"),
    (["widht=3"], "widht: no such key"),
    (["model.width=wide"], "model.width=wide: a whole number"),
    (["model.width=0"], "model.width=0: must be above 0"),
    (["model.width=33"], "model.width=33: must be a multiple of model.head_size=16"),
    (["model.head_size=1"], "model.head_size=1: must be even"),
    (["model.shared_qk=true", "model.shift_keys=false"], "model.shared_qk=true: needs model.shift_keys=true"),
    (["model.uniform_heads=true", "model.qk_norm=false"], "model.uniform_heads=true: needs model.qk_norm=true"),
    (["model.shared_qk=true", "model.head_size=4"], "model.head_size=4: must be a multiple of 8"),
    (["lr=-1"], "lr=-1: must be above 0"),
    (["lr=fast"], "lr=fast: a number"),
    (["batch_tokens=1000"], "batch_tokens=1000: must be a multiple of model.context=64"),
    (["tokens=4M", "flops=1e9"], "a run's length is one of them"),
    (["schedule=cosin"], "schedule=cosin: unknown; allowed are"),
    (["schedule=null"], "schedule=null: a group is chosen by name; allowed are average, constant"),
    (["scale="], "scale=: a group is chosen by name; allowed are cpu, gpu"),
    (["schedule.shape=square"], "schedule.shape=square: allowed are linear, cosine, sqrt, exp, half_life"),
    (["schedule=cosine", "schedule.decay=.1"], "schedule.decay: no such key"),
    (["schedule=power", "schedule.exponent=1"], "schedule.exponent=1"),
    (["schedule.final=2"], "schedule.final=2"),
    (["model.qk_norm=3"], "model.qk_norm=3: true or false"),
    (["model.mlp=gelu2"], "model.mlp=gelu2: allowed are gelu, relu2, swiglu (did you mean gelu?)"),
    (["model.tied=true"], "model.tied=true: the tied readout is the embedding"),
    (["optimizer.beta2=1"], "optimizer.beta2=1: must be at least 0 and below 1"),
    (["model.width=[3"], "not understood"),
    (["+model.width=3"], "leave out the +"),
    (["data.unit=word"], "data.unit=word: allowed are document, line"),
    (["experiment=quickstrat"], "experiment=quickstrat: unknown; allowed are"),
    (["launch.workers=0"], "launch.workers=0: must be above 0"),
    (["tokens=nan"], "tokens=nan: a whole number"),
    (["tokens=inf"], "tokens=inf: a whole number"),
    (["lr=1e400"], "lr=inf: a number"),
]


@pytest.mark.parametrize(("overrides", "says"), WRONG, ids=lambda x: x[0] if isinstance(x, list) else "")
def test_what_is_wrong_is_named_in_one_line(overrides, says):
    with pytest.raises(RequestError) as caught:
        build_config(compose(overrides))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_of_ones_own_is_searched_too(tmp_path: Path):
    (tmp_path / "schedule").mkdir()
    (tmp_path / "schedule" / "mine.yaml").write_text("name: cosine\nfinal: 0.5\n")
    assert build_config(compose(["schedule=mine"], str(tmp_path))).schedule.final == 0.5
    assert group_loader([], str(tmp_path))("schedule", "mine")["final"] == 0.5


def grid(*grids: dict, overrides: tuple[str, ...] = ()) -> list:
    return expand(compose(list(overrides)), list(grids), group_loader(list(overrides)))


def test_a_list_is_an_axis_and_grids_are_a_union():
    configs = grid({"model": {"width": [32, 64]}, "tokens": ["1M", "2M"]}, {"model.width": 48, "lr": [0.1, 0.2, 0.3]})
    assert [(c.model.width, c.tokens) for c in configs[:4]] == [
        (32, 1_000_000), (32, 2_000_000), (64, 1_000_000), (64, 2_000_000),
    ]  # fmt: skip
    assert [c.lr for c in configs[4:]] == [0.1, 0.2, 0.3]


def test_a_group_is_chosen_by_name_with_keys_beside_it():
    a, b = grid({"schedule": ["cosine", "power_published"]})
    assert (a.schedule.name, b.schedule.name, b.schedule.amplitude) == ("cosine", "power", 4.6)
    (c,) = grid({"schedule": {"name": "cosine", "final": 0.3}})
    assert (c.schedule.name, c.schedule.final) == ("cosine", 0.3)


def test_what_the_user_sets_in_a_group_holds_for_the_options_of_a_grid():
    overrides = ("model.width=16", "model.head_size=8", "schedule.decay=0.5")
    a, b, c = grid({"model": ["gpt", "plain"]}, {"schedule": "cosine"}, overrides=overrides)
    assert (a.model.width, a.model.shift_keys, b.model.width, b.model.shift_keys) == (16, True, 16, False)
    assert (a.schedule.decay, c.schedule.name) == (0.5, "cosine")


def test_a_base_that_no_run_uses_is_not_checked():
    (config,) = grid({"model": {"width": 24, "head_size": 12}}, overrides=("model.width=33",))
    assert config.model.width == 24


def test_a_length_in_a_grid_replaces_the_base_s():
    configs = grid({"flops": ["1e9", "2e9"]}, overrides=("tokens=1M",))
    assert [(c.tokens, c.flops) for c in configs] == [(None, 1e9), (None, 2e9)]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"model": {"width": []}}, "sweep.grids[0].model.width=[]: an axis needs at least one value"),
        ({"model": {"widht": [3]}}, "model.widht: no such key"),
        ({"data": {"unit": ["line"]}}, "sweep.grids[0].data.unit: cannot be varied"),
        ({"lr": ["x"]}, "lr=x: a number"),
        ({"modle.width": 3}, "sweep.grids[0].modle.width: cannot be varied (did you mean model?)"),
        ({"model": {"width": 64}, "model.width": 32}, "sweep.grids[0].model.width: given twice"),
        ({"schedule": "none"}, "schedule=none: unknown"),
        ({"schedule": 3}, "choose a file of conf/schedule by name"),
        ({"model": {"width": 33}}, "multiple of model.head_size"),
    ],
)
def test_a_wrong_grid_is_refused_by_name(wrong, says):
    with pytest.raises(RequestError) as caught:
        grid(wrong)
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["/tmp/jürgen", "it's", "a,b=c#d&e~f", "a[b]{c}", "back\\slash\\", "\\'", "", "a b"])
def test_any_text_survives_hydra_s_grammar(text):
    assert compose([f"store={quoted(text)}"])["store"] == text


def test_a_group_s_choices_and_a_key_beside_them_are_two_axes():
    configs = grid({"schedule": ["wsd", "cosine"], "schedule.final": [0.1, 0.2]})
    assert [(c.schedule.name, c.schedule.final) for c in configs] == [
        ("wsd", 0.1), ("wsd", 0.2), ("cosine", 0.1), ("cosine", 0.2),
    ]  # fmt: skip


def test_free_mappings_are_replaced_whole_or_key_by_key():
    base = "sweep.target={model:{width:64},tokens:1M}"
    assert compose([base, "sweep.target={lr:0.1}"])["sweep"]["target"] == {"lr": 0.1}
    assert compose([base, "sweep.target.lr=0.1"])["sweep"]["target"] == {
        "model": {"width": 64}, "tokens": "1M", "lr": 0.1,
    }  # fmt: skip
    assert compose(["experiment=quickstart", "sweep.target.model.depth=3"])["sweep"]["target"]["model"]["depth"] == 3
    assert compose(["fit.columns={params:N}"])["fit"]["columns"] == {"params": "N"}


def test_a_target_is_one_run():
    tree = compose(["tokens=1M"])
    target = point(tree, {"model": {"width": 128}, "tokens": "4M"}, group_loader([]), "sweep.target")
    assert (target.model.width, target.tokens) == (128, 4_000_000)
    with pytest.raises(RequestError, match=r"sweep.target.model.width=\[32, 64\]: sweep.target is one run"):
        point(tree, {"model": {"width": [32, 64]}}, group_loader([]), "sweep.target")


def runs(*overrides: str, config_dir: str | None = None) -> list[Run]:
    """Runs of a sweep, then its target, on a corpus that is not prepared."""
    tree = compose(list(overrides), config_dir)
    config, group = build_config(tree), group_loader(list(overrides), config_dir)
    found = expand(tree, config.sweep.grids, group)
    found += [point(tree, config.sweep.target, group, "sweep.target")] if config.sweep.target else []
    return [run_of(c, "c", 256) for c in found]


SMALL = """# @package _global_
warmup: 2048
batch_tokens: 1024
schedule: {shape: half_life, half_life: 30K}
sweep:
  name: mine
  grids:
    - {model.width: [32, 48], model: {context: 64}, tokens: [200K, 0.3M], batch_tokens: 512}
    - {model: {depth: [1, 3]}, schedule: infinite, schedule.decay: [0.2, 20480], tokens: 1M}
    - {schedule: power, tokens: 1M}
    - {model.width: 32, flops: [1e11, 2e11]}
    - {model.depth: 2, tokens_per_param: 40, warmup: 0}
  target: {model: {width: 96}, tokens: 2M}
"""
LARGE = """# @package _global_
warmup: 20480
batch_tokens: 4096
model: {width: 64, depth: 4}
schedule: {shape: half_life, half_life: 300K}
sweep:
  name: mine
  grids:
    - {model.width: [64, 96], model: {context: 64}, tokens: [2M, 3M], batch_tokens: 2048}
    - {model: {depth: [2, 6]}, schedule: {name: infinite, cooldown: 5M, decay: [0.2, 204800]}, tokens: 10M}
    - {schedule: {name: power, knee: 10M}, tokens: 10M}
    - {model.width: 64, flops: [8e12, 16e12]}
    - {model.depth: 4, tokens_per_param: 40, warmup: 0}
  target: {model: {width: 192}, tokens: 20M}
"""
SCALED = ["experiment=small", "scale=twice"]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """An experiment of one's own at two sizes, and the scale that leads from one to the other."""
    for name, text in {
        "experiment/small": SMALL,
        "experiment/large": LARGE,
        "scale/twice": "width: 2\ndepth: 2\ntokens: 10\nbatch: 4\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    return str(tmp_path)


def test_a_scaled_sweep_is_the_sweep_written_out_at_the_large_sizes(folder):
    scaled, written = runs(*SCALED, config_dir=folder), runs("experiment=large", config_dir=folder)
    assert len(written) == 4 + 4 + 1 + 2 + 1 + 1
    assert [r.id for r in scaled] == [r.id for r in written]


def test_what_the_command_line_says_is_not_scaled(folder):
    words = [*SCALED, "model.width=80", "tokens=50K", "batch_tokens=256", "model={depth:5}", "schedule.half_life=7K"]
    base = compose([*words, "sweep.grids=[{lr:0.1}]", "sweep.target.tokens=3M"], folder)
    assert (base["model"]["width"], base["model"]["depth"]) == (80, 5)
    assert (base["tokens"], base["batch_tokens"], base["schedule"]["half_life"]) == ("50K", 256, "7K")
    assert (base["warmup"], base["sweep"]["grids"]) == (20480, [{"lr": 0.1}])
    assert base["sweep"]["target"] == {"model": {"width": 192}, "tokens": "3M"}


def test_a_scale_wins_over_an_experiment_and_the_command_line_over_both():
    words = ["experiment=quickstart", "scale=gpu"]
    config = build_config(compose(words))
    assert (config.model.context, config.train.precision, config.data.name) == (512, "bfloat16", "prose")
    config = build_config(compose([*words, "model.context=1024", "train.precision=float32", "data=code"]))
    assert (config.model.context, config.train.precision, config.data.name) == (1024, "float32", "code")
    assert build_config(compose([*words, "scale.tokens=2"])).tokens == 5_000_000


def test_scaled_sizes_are_whole_heads_and_sequences():
    (run,) = runs("scale.width=1.3", "scale.tokens=0.3001", "scale.batch=1.7", "tokens_per_param=9")
    assert (run.recipe.model.width, run.recipe.batch_tokens, run.phases[0].end % 1728) == (48, 1728, 0)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["scale.width=0"], "scale.width=0: must be above 0"),
        (["scale.tokens=-1"], "scale.tokens=-1: must be above 0"),
        (["scale.batch=big"], "scale.batch=big: a number"),
        (["scale.widht=2"], "scale.widht: no such key (did you mean scale.width?)"),
        (["scale=gpus"], "scale=gpus: unknown; allowed are cpu, gpu"),
        (["scale.width=0.2"], "scale.width=0.2: model.width=32 would be 6.4, and must be at least 16"),
        (["scale.depth=0.1"], "scale.depth=0.1: model.depth=2 would be 0.2, and must be at least 1"),
        (
            ["experiment=step_law", "scale.width=0.3"],
            "scale.width=0.3: model.width=[32, 48, 64] would be [16, 16, 16]",
        ),
        (["experiment=mup", "scale.tokens=1e308"], "tokens=inf: a whole number"),
    ],
)
def test_a_factor_that_gives_no_sizes_is_refused_by_name(overrides, says):
    with pytest.raises(RequestError) as caught:
        runs(*overrides)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
