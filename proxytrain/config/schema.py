"""The typed schema: what may be asked, key by key. Unknown keys, wrong types and impossible values are refused by name.

Hydra composes `conf/` into a plain tree; `build` turns that tree into the frozen dataclasses below. Numbers read
`4e6`, `4M` and `4_000_000` alike. The classes say what is allowed; `conf/` says what is default and what it is for.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from proxytrain.config.schedule import SCHEDULES, Schedule
from proxytrain.errors import RequestError, did_you_mean
from proxytrain.fit.core.options import FitConfig
from proxytrain.types import Natural, Positive, PositiveFloat, Share, Size, parse_number


@dataclass(frozen=True)
class TextData:
    """Keys shared by every source of text."""

    name: str
    unit: Literal["document", "line"]  # what is shuffled (once, over the whole corpus)
    tokenizer: str  # bytes | bpe | path of a tokenizer.json
    vocab_size: int  # of the BPE that is trained when tokenizer=bpe
    val_fraction: float  # share of the documents, by hash, that is held out
    val_tokens: int  # at most so many validation tokens are kept
    max_bytes: int | None  # of text read; null: all
    shuffle_seed: int
    allow_repeat: bool  # a run longer than the corpus: true = said and recorded, false = refused


@dataclass(frozen=True)
class CodeData(TextData):
    """`data=code`: Python sources of the standard library and of pinned packages; nothing is downloaded."""

    packages: list[str]
    reference_hash: str | None  # of the text on the machines that the pins describe


@dataclass(frozen=True)
class ProseData(CodeData):
    """`data=prose`: docstrings and comments of those sources, each a document."""


@dataclass(frozen=True)
class FilesData(TextData):
    """`data=files`: globs of text, JSON, CSV and Parquet, packed or plain; their content decides what they are."""

    files: list[str]
    text_key: str


@dataclass(frozen=True)
class HubData(TextData):
    """`data=hub`: a Hugging Face dataset, streamed up to `max_bytes`."""

    path: str
    config: str | None
    split: str
    column: str


@dataclass(frozen=True)
class TokensData:
    """`data=tokens`: ready token files, as nanoGPT, llm.c and numpy write them."""

    name: str
    train: list[str]
    val: list[str]  # empty: the last val_fraction of the training files
    dtype: str  # uint16 | uint32
    vocab_size: int
    bytes_per_token: PositiveFloat | None  # of the tokenizer that made them, for bits per byte
    val_fraction: float
    val_tokens: int
    allow_repeat: bool


DATA = {"code": CodeData, "prose": ProseData, "files": FilesData, "hub": HubData, "tokens": TokensData}


@dataclass(frozen=True)
class Model:
    """Shape of the GPT; what each key does is told in `conf/model/gpt.yaml`."""

    width: Positive
    depth: Positive
    head_size: Positive
    context: Positive
    mlp: Literal["gelu", "relu2", "swiglu"]
    mlp_ratio: PositiveFloat
    rope_base: PositiveFloat
    qk_norm: bool
    tied: bool
    logit_bias: bool
    shift_keys: bool
    conv_attention: Literal[0, 2, 3]  # taps of the short causal convolution before attention; 0: none
    conv_mlp: Literal[0, 2, 3]
    shared_qk: bool = False
    uniform_heads: bool = False


@dataclass(frozen=True)
class Parametrization:
    """How init, learning rate and multipliers follow the width; `parametrization.py` has the table."""

    name: Literal["sp", "mup_simple", "mup", "completep"]
    base_width: Positive
    embedding_std: Size
    readout_std: Size  # in units of 1/sqrt(width); 0: zero init
    base_depth: Positive = 2  # of completep


@dataclass(frozen=True)
class Optimizer:
    """AdamW."""

    name: str
    beta1: Share
    beta2: Share
    eps: PositiveFloat
    weight_decay: Size  # an update, times lr/peak; on the hidden matrices
    clip: PositiveFloat | None
    z_loss: Size
    decay: Literal["independent", "coupled"] = "independent"  # see `optim/update.py`


@dataclass(frozen=True, kw_only=True)
class Muon(Optimizer):
    """Orthogonal steps for the matrices inside blocks, AdamW for all else."""

    momentum: Share  # of the matrices
    iterations: Positive  # of Newton-Schulz
    adamw_lr: PositiveFloat  # rate of what AdamW trains, as a share of lr


@dataclass(frozen=True)
class SGDSaI:
    """SGD with momentum, the rate of each tensor scaled once, by its first gradient."""

    name: str
    momentum: Share
    eps: PositiveFloat
    weight_decay: Size
    clip: PositiveFloat | None
    z_loss: Size
    decay: Literal["independent", "coupled"] = "independent"


OPTIMIZERS = {"adamw": Optimizer, "muon": Muon, "sgd_sai": SGDSaI}


@dataclass(frozen=True)
class Train:
    """How to train: nothing here changes an id, except the precision."""

    device: str  # auto | cpu | cuda
    precision: Literal["float32", "bfloat16"]
    memory: Positive | None  # bytes a pack may use; null: what the device has, shared by its workers
    checkpoint_seconds: PositiveFloat
    eval_every: Positive  # tokens between evaluations on the small slice
    eval_tokens: Positive  # size of that slice
    keep_weights: Literal["none", "final", "all"] = "final"
    compile: Literal["auto", "on", "off"] = "auto"
    telemetry_every: Natural = 50  # updates between looks at logits, gradients and weights; 0: none


@dataclass(frozen=True)
class Launch:
    """What workers have wherever they run."""

    name: str
    threads: Positive  # torch threads a worker
    stale_seconds: PositiveFloat  # a worker that is silent for so long is taken for dead


@dataclass(frozen=True)
class Local(Launch):
    """`launch=local`: workers of this machine."""

    devices: list[str]  # auto, or the numbers of the GPUs to use
    workers: Positive | None  # null: one a core, one a GPU
    time_limit: PositiveFloat | None  # seconds after which workers save and leave


@dataclass(frozen=True)
class Slurm(Launch):
    """`launch=slurm`: workers as the tasks of a SLURM array; `proxytrain submit` starts them."""

    workers: Positive  # tasks of the array
    max_parallel: Positive | None  # tasks at once
    gpus: str | None  # of a worker: 1 or TYPE:1
    partition: str | None
    time: str | None  # as sbatch reads it
    warn_seconds: Positive  # before the limit
    requeue: bool
    finish: bool
    setup: str  # shell text of the user's own
    sbatch_args: dict[str, Any]


LAUNCH = {"local": Local, "slurm": Slurm}


@dataclass(frozen=True)
class Track:
    """`track=none`: no mirror."""

    name: str


@dataclass(frozen=True)
class Wandb(Track):
    """`track=wandb`: a mirror in Weights & Biases."""

    mode: Literal["online", "offline"] | None  # null: as the environment says
    entity: str | None
    project: str | None
    requests_per_minute: PositiveFloat


TRACK = {"none": Track, "wandb": Wandb}


@dataclass(frozen=True)
class Sweep:
    """A list of grids (their union) and the run that they are meant to predict."""

    name: str
    grids: list[dict[str, Any]]
    target: dict[str, Any] | None
    budget_hours: PositiveFloat  # of training, by the plan's estimate


@dataclass(frozen=True)
class Scale:
    """Factors on the sizes that files give; `scale.py` multiplies them in, and they are 1 from then on."""

    width: PositiveFloat
    depth: PositiveFloat
    tokens: PositiveFloat
    batch: PositiveFloat


@dataclass(frozen=True)
class Verify:
    """How often the target is trained to see the truth: with `init_seed`, `init_seed` + 1, ..."""

    seeds: Positive


@dataclass(frozen=True)
class CoordCheck:
    """Sizes at which `coordcheck` looks at activations, after so many updates at `lr`, in so many seeds."""

    widths: list[Positive]
    depths: list[Positive]
    updates: Positive
    seeds: Positive
    lr: PositiveFloat


@dataclass(frozen=True)
class Config:
    """One composed configuration: a point in the space of runs, and what to do with it."""

    model: Model
    parametrization: Parametrization
    optimizer: Optimizer | Muon | SGDSaI
    schedule: Schedule
    data: CodeData | ProseData | FilesData | HubData | TokensData
    sweep: Sweep
    train: Train
    launch: Local | Slurm
    track: Track | Wandb
    fit: FitConfig
    scale: Scale
    verify: Verify
    coordcheck: CoordCheck
    store: str
    table: str | None
    compare: list[str]
    curves: str | None  # a folder, or `sweep`
    wandb: str | None  # entity/project, or entity/project/group
    file: str | None
    params: PositiveFloat | None
    tokens: Positive | None  # the length of a run: one of tokens, tokens_per_param, flops
    tokens_per_param: PositiveFloat | None
    flops: PositiveFloat | None
    lr: PositiveFloat
    warmup: Natural
    batch_tokens: Positive
    init_seed: Natural
    data_seed: Natural | None  # null: as init_seed


UNIONS = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "data": DATA, "launch": LAUNCH, "track": TRACK}


def build_config(tree: dict[str, Any]) -> Config:
    """The typed configuration of a composed tree.

    Raises
    ------
    RequestError
        One line that names the key, its value and what is allowed.
    """
    config = build(Config, tree)
    check(config)
    return config


def build(cls: Any, value: Any, key: str = "") -> Any:
    """Value as an instance of `cls`: a dataclass, a union of them chosen by `name`, or a plain type."""
    if dataclasses.is_dataclass(cls):
        return _build_dataclass(cls, value, key)
    origin, args = typing.get_origin(cls), typing.get_args(cls)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        args = tuple(a for a in args if a is not type(None))
        return build(_member(key, value) if dataclasses.is_dataclass(args[0]) else args[0], value, key)
    if origin is Literal:
        value = parse_number(value) if isinstance(args[0], int) else value
        if isinstance(value, bool) and {"on", "off"} <= set(args):
            value = "on" if value else "off"  # as YAML reads these words
        if value not in args:
            raise RequestError(
                f"{key}={value}: allowed are {', '.join(map(str, args))}{did_you_mean(str(value), args)}"
            )
        return args[args.index(value)]
    if origin is Annotated:
        built = build(args[0], value, key)
        low, open_low, high = args[1]
        if built < low or (open_low and built == low) or built >= high:
            limits = f"{'above' if open_low else 'at least'} {low}" + (
                f" and below {high:g}" if high < float("inf") else ""
            )
            raise RequestError(f"{key}={value}: must be {limits}")
        return built
    if origin is list:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            raise RequestError(f"{key}={value!r}: a list is needed")
        return [build(args[0], v, f"{key}[{i}]") for i, v in enumerate(value)]
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise RequestError(f"{key}={value!r}: a mapping of config keys is needed")
        return value
    return _number_or_plain(cls, value, key)


def check(config: Config) -> None:
    """What types cannot say: ranges and combinations that no run could have."""
    m = config.model
    if m.width % m.head_size:
        raise RequestError(f"model.width={m.width}: must be a multiple of model.head_size={m.head_size}")
    if m.head_size % 2:
        raise RequestError(f"model.head_size={m.head_size}: must be even (rotary embedding turns pairs)")
    if m.shared_qk and not m.shift_keys:
        raise RequestError("model.shared_qk=true: needs model.shift_keys=true, or every token attends to itself")
    if m.shared_qk and m.head_size % 8:
        raise RequestError(f"model.head_size={m.head_size}: must be a multiple of 8 with model.shared_qk=true")
    if m.uniform_heads and not m.qk_norm:
        raise RequestError("model.uniform_heads=true: needs model.qk_norm=true, whose gains make such heads")
    if config.batch_tokens % m.context:
        raise RequestError(f"batch_tokens={config.batch_tokens}: must be a multiple of model.context={m.context}")
    if m.tied and config.parametrization.readout_std == 0:
        raise RequestError(
            "model.tied=true: the tied readout is the embedding and cannot start at zero; set model.tied=false, "
            "or parametrization.readout_std=1 with a small parametrization.embedding_std, such as 0.1"
        )
    if config.optimizer.name == "sgd_sai" and config.parametrization.name not in ("sp", "mup"):
        raise RequestError(
            f"optimizer=sgd_sai, parametrization={config.parametrization.name}: how its rates go with size is known "
            "for parametrization=mup and sp only"
        )
    if sum(x is not None for x in (config.tokens, config.tokens_per_param, config.flops)) > 1:
        raise RequestError(
            f"tokens={config.tokens}, tokens_per_param={config.tokens_per_param}, flops={config.flops}: "
            "a run's length is one of them; set the others to null"
        )


def _member(key: str, value: Any) -> type:
    """The dataclass of a union that `name` chooses."""
    members = UNIONS[key]
    name = value.get("name") if isinstance(value, dict) else value
    if name not in members:
        raise RequestError(f"{key}={name}: unknown; allowed are {', '.join(members)}{did_you_mean(str(name), members)}")
    return members[name]


def _build_dataclass(cls: Any, value: Any, key: str) -> Any:
    prefix = f"{key}." if key else ""
    if not isinstance(value, dict):
        raise RequestError(f"{key}={value!r}: a mapping of config keys is needed")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in value:
        if name not in fields:
            raise RequestError(
                f"{prefix}{name}: no such key{did_you_mean(name, fields)}; {key or 'config'} has {', '.join(fields)}"
            )
    hints = _hints(cls)
    missing = [n for n, f in fields.items() if n not in value and f.default is dataclasses.MISSING]
    if missing:
        raise RequestError(f"{prefix}{missing[0]}: missing; give it a value")
    return cls(**{name: build(hints[name], v, prefix + name) for name, v in value.items()})


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _number_or_plain(cls: type, value: Any, key: str) -> Any:
    if cls in (int, float):
        number = parse_number(value)
        if number is None or not math.isfinite(number) or (cls is int and number != int(number)):
            what = "a whole number, such as 4000000, 4e6 or 4M" if cls is int else "a number, such as 0.01 or 1e-2"
            raise RequestError(f"{key}={value}: {what} is needed")
        return cls(number)
    if cls is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if cls is Any or (cls is bool and isinstance(value, bool)):
        return value
    what = {bool: "true or false", str: "a text"}.get(cls, cls.__name__)
    raise RequestError(f"{key}={value!r}: {what} is needed")
