"""The typed schema: which keys there are and which values each may have. `conf/` has the defaults."""

from __future__ import annotations

from typing import Any, Literal

from proxytrain.config.schedule import Schedule
from proxytrain.config.section import Choice, Section, build
from proxytrain.errors import RequestError
from proxytrain.fit.core.options import FitConfig
from proxytrain.types import Natural, Positive, PositiveFloat, Share, Size


class TextData(Choice, frozen=True, kw_only=True):
    """Keys shared by every source of text."""

    unit: Literal["document", "line"]  # what is shuffled (once, over the whole corpus)
    tokenizer: str  # bytes | bpe | path of a tokenizer.json
    vocab_size: int  # of the BPE that is trained when tokenizer=bpe
    val_fraction: float  # share of the documents, by hash, that is held out
    val_tokens: int  # at most so many validation tokens are kept
    max_bytes: int | None  # of text read; null: all
    shuffle_seed: int
    allow_repeat: bool  # a run longer than the corpus: true = said and recorded, false = refused


class CodeData(TextData, frozen=True, kw_only=True, tag="code"):
    """`data=code`: Python sources of the standard library and of pinned packages; nothing is downloaded."""

    packages: list[str]
    reference_hash: str | None  # of the text on the machines that the pins describe


class ProseData(CodeData, frozen=True, kw_only=True, tag="prose"):
    """`data=prose`: docstrings and comments of those sources, each a document."""


class FilesData(TextData, frozen=True, kw_only=True, tag="files"):
    """`data=files`: globs of text, JSON, CSV and Parquet, packed or plain; their content decides what they are."""

    files: list[str]
    text_key: str


class HubData(TextData, frozen=True, kw_only=True, tag="hub"):
    """`data=hub`: a Hugging Face dataset, streamed up to `max_bytes`."""

    path: str
    config: str | None
    split: str
    column: str


class TokensData(Choice, frozen=True, kw_only=True, tag="tokens"):
    """`data=tokens`: ready token files, as nanoGPT, llm.c and numpy write them."""

    train: list[str]
    val: list[str]  # empty: the last val_fraction of the training files
    dtype: str  # uint16 | uint32
    vocab_size: int
    bytes_per_token: PositiveFloat | None  # of the tokenizer that made them, for bits per byte
    val_fraction: float
    val_tokens: int
    allow_repeat: bool


AnyData = CodeData | ProseData | FilesData | HubData | TokensData


class Model(Section, frozen=True, kw_only=True):
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


class Parametrization(Section, frozen=True, kw_only=True):
    """How init, learning rate and multipliers follow the width; `parametrization.py` has the table."""

    name: Literal["sp", "mup_simple", "mup", "completep"]
    base_width: Positive
    embedding_std: Size
    readout_std: Size  # in units of 1/sqrt(width); 0: zero init
    base_depth: Positive = 2  # of completep


class Optimizer(Choice, frozen=True, kw_only=True):
    """Keys shared by every optimizer."""

    weight_decay: Size  # per update, times lr/peak; on the hidden matrices
    clip: PositiveFloat | None
    z_loss: Size
    decay: Literal["independent", "coupled"] = "independent"  # see `optim/update.py`


class AdamW(Optimizer, frozen=True, kw_only=True, tag="adamw"):
    """AdamW."""

    beta1: Share
    beta2: Share
    eps: PositiveFloat


class Muon(AdamW, frozen=True, kw_only=True, tag="muon"):
    """Orthogonal steps for the matrices inside blocks, AdamW for all else."""

    momentum: Share  # of the matrices
    iterations: Positive  # of Newton-Schulz
    adamw_lr: PositiveFloat  # rate of what AdamW trains, as a share of lr


class SGDSaI(Optimizer, frozen=True, kw_only=True, tag="sgd_sai"):
    """SGD with momentum, the rate of each tensor scaled once, by its first gradient."""

    momentum: Share
    eps: PositiveFloat


AnyOptimizer = AdamW | Muon | SGDSaI


class Train(Section, frozen=True, kw_only=True):
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


class Launch(Choice, frozen=True, kw_only=True):
    """What workers have wherever they run."""

    threads: Positive  # torch threads a worker
    stale_seconds: PositiveFloat  # a worker that is silent for so long is taken for dead


class Local(Launch, frozen=True, kw_only=True, tag="local"):
    """`launch=local`: workers of this machine."""

    devices: list[str]  # auto, or the numbers of the GPUs to use
    workers: Positive | None  # null: one a core, one a GPU
    time_limit: PositiveFloat | None  # seconds after which workers save and leave


class Slurm(Launch, frozen=True, kw_only=True, tag="slurm"):
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


class Track(Choice, frozen=True, kw_only=True):
    """Where the store is mirrored."""


class NoTrack(Track, frozen=True, kw_only=True, tag="none"):
    """`track=none`: no mirror."""


class Wandb(Track, frozen=True, kw_only=True, tag="wandb"):
    """`track=wandb`: a mirror in Weights & Biases."""

    mode: Literal["online", "offline"] | None  # null: as the environment says
    entity: str | None
    project: str | None
    requests_per_minute: PositiveFloat


class Sweep(Section, frozen=True, kw_only=True):
    """A list of grids (their union) and the run that they are meant to predict."""

    name: str
    grids: list[dict[str, Any]]
    target: dict[str, Any] | None
    budget_hours: PositiveFloat  # of training, by the plan's estimate


class Scale(Section, frozen=True, kw_only=True):
    """Factors on the sizes that files give; `scale.py` multiplies them in, and they are 1 from then on."""

    width: PositiveFloat
    depth: PositiveFloat
    tokens: PositiveFloat
    batch: PositiveFloat


class Verify(Section, frozen=True, kw_only=True):
    """How often the target is trained to see the truth: with `init_seed`, `init_seed` + 1, ..."""

    seeds: Positive


class CoordCheck(Section, frozen=True, kw_only=True):
    """Sizes at which `coordcheck` looks at activations, after so many updates at `lr`, in so many seeds."""

    widths: list[Positive]
    depths: list[Positive]
    updates: Positive
    seeds: Positive
    lr: PositiveFloat


class Config(Section, frozen=True, kw_only=True):
    """One composed configuration: a point in the space of runs, and what to do with it."""

    model: Model
    parametrization: Parametrization
    optimizer: AnyOptimizer
    schedule: Schedule
    data: AnyData
    sweep: Sweep
    train: Train
    launch: Local | Slurm
    track: NoTrack | Wandb
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
