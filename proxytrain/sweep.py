"""The main job, step by step: configuration -> corpus -> runs -> plan -> training -> table -> fit -> prediction.

Each function takes what the one before returned, so that the verbs are short chains of them.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from proxytrain import accounting
from proxytrain.compose import compose, group_loader, leaves
from proxytrain.config import Config, Local, Slurm, build
from proxytrain.corpus import Corpus, Stream, prepare
from proxytrain.errors import Refusal, RequestError
from proxytrain.fit import Curve, Fit, FitConfig, Prediction, fit_losses, load_fit
from proxytrain.fit.curves.jumps import jump
from proxytrain.fit.laws import get_law
from proxytrain.fit.steps import Progress
from proxytrain.launch import local
from proxytrain.launch.claims import holder
from proxytrain.launch.machine import machine
from proxytrain.launch.parts import NOT_PLANNED, failures, unfinished
from proxytrain.plan import freeze, speed
from proxytrain.plan.freeze import Plan
from proxytrain.plan.grid import expand, point
from proxytrain.plan.speed import Speeds
from proxytrain.runs import Run, run_of
from proxytrain.schedule import learning_rates
from proxytrain.store import Store, remove, write_text
from proxytrain.track import watch
from proxytrain.track.console import Console
from proxytrain.track.text import duration, plan_lines, size, tokens


@dataclass(frozen=True)
class Request:
    """What was asked: the runs of a sweep and its target, on a prepared corpus."""

    config: Config
    store: Store
    corpus: Corpus
    runs: list[Run]
    records: list[dict[str, Any]]
    targets: list[Run]  # the run to predict; with verify.seeds=n under n seeds
    target_records: list[dict[str, Any]]
    command: list[str]  # arguments of the verb that asked

    @property
    def target(self) -> Run | None:
        return self.targets[0] if self.targets else None

    @property
    def target_record(self) -> dict[str, Any] | None:
        return self.target_records[0] if self.target_records else None

    @property
    def name(self) -> str:
        return self.config.sweep.name

    @property
    def ids(self) -> list[str]:
        return [run.id for run in self.runs]

    @property
    def folder(self) -> Path:
        return self.store.sweep(self.name)


Check = Callable[[Request, Plan], None]  # raises RequestError


def request(overrides: list[str], config_dir: str | None, console: Console, corpus: Corpus | None = None) -> Request:
    """Compose and check a configuration, prepare its corpus (unless one is given), and expand its grids.

    Raises
    ------
    RequestError
        For anything that could not be trained: keys, values, text, lengths.
    """
    tree = compose(overrides, config_dir)
    config: Config = build(Config, tree)  # its points are checked, not the base that they vary
    store = Store(config.store)
    store.sweep(config.sweep.name)
    group = group_loader(overrides, config_dir)
    _check_fit(config)
    configs = expand(tree, config.sweep.grids, group)
    target_configs = []
    if config.sweep.target:
        goal = point(tree, config.sweep.target, group, "sweep.target")
        target_configs = [_reseeded(goal, i) for i in range(config.verify.seeds)]
    store.check_writable()
    with console.at_work("corpus") as tell:
        corpus = corpus or prepare(config.data, store.corpora(), lambda *done: tell(*_of_text(*done)), console.say)
    manifest = corpus.manifest
    by_id = {run.id: (run, c) for c in configs for run in [run_of(c, manifest.content_hash, manifest.vocab_size)]}
    known = {run.schedule for run, _ in by_id.values()}
    if config.fit.schedule is not None and config.fit.schedule not in known:
        raise RequestError(f"fit.schedule={config.fit.schedule}: no run has it; there are {', '.join(sorted(known))}")
    targets = [run_of(c, manifest.content_hash, manifest.vocab_size) for c in target_configs]
    runs = [run for run, _ in by_id.values()]
    for run in [*runs, *targets]:
        _check_text(run, corpus)
    _check_repeats([*runs, *targets], corpus, config.data.allow_repeat, console)
    return Request(
        config=config,
        store=store,
        corpus=corpus,
        runs=runs,
        records=[freeze.run_record(run, c) for run, c in by_id.values()],
        targets=targets,
        target_records=[freeze.run_record(run, c) for run, c in zip(targets, target_configs)],
        command=[*(["--config-dir", config_dir] if config_dir else []), *overrides],
    )


def plan(asked: Request, check: Check | None = None, *, runs: list[Run] | None = None, name: str | None = None) -> Plan:
    """The sweep's plan: the one on disk while the request is the same and work is left, else a new one.

    What `check` (`afford`, `trainable`) refuses is not written.
    """
    name = name or asked.name
    path = asked.store.sweep(name) / "plan.json"
    runs = asked.runs if runs is None else runs
    records = {r["id"]: r for r in [*asked.records, *asked.target_records]}
    chosen = [records[run.id] for run in runs]
    train = asked.config.train
    if path.exists():
        old = freeze.load(path)
        same = freeze.request_of(chosen, asked.target_record) == old.request
        busy = {h["pid"]: h["host"] for p in path.parent.glob("packs/*/claim") if (h := holder(p.parent))}
        if busy and not same:
            who = ", ".join(f"{host} pid {pid}" for pid, host in busy.items())
            raise RequestError(f"sweep.name={name}: other runs are being trained under it ({who}); choose another name")
        device = machine(asked.config).device if isinstance(asked.config.launch, Slurm) else old.costs["device"]
        made_for = (old.train.memory, old.train.device, old.costs["device"])
        fits = made_for == (train.memory, train.device, device) or bool(busy)
        if same and (not missing(asked.store, [r.id for r in runs]) or (fits and _workable(old, asked.store))):
            made = dataclasses.replace(old, train=train)
            if check:
                check(asked, made)
            if made != old:
                freeze.save(made, path)
            return made
    here = machine(asked.config)
    made = freeze.make(
        name,
        runs,
        chosen,
        asked.target_record,
        store=asked.store,
        train=train,
        workers=here.workers,
        device=here.device,
        memory=here.memory,
        threads=here.threads,
        speeds=speeds(asked),
    )
    if check:
        check(asked, made)
    asked.store.mark()
    freeze.save(made, path)
    for folder in path.parent.glob("packs/*"):  # of a plan before
        if folder.name not in made.micro_batches and not holder(folder):
            remove(folder)
    return made


def speeds(asked: Request) -> Speeds:
    """What is known of the speed of the machine that the sweep is for."""
    here = machine(asked.config)
    return speed.load(asked.store, here.name, here.device, asked.config.train.precision, here.threads)


def afford(asked: Request, made: Plan) -> None:
    """Refuse, with its cost, what takes longer than the budget or more disk than there is.

    Raises
    ------
    RequestError
        Before anything is trained.
    """
    if not missing(asked.store, made.runs):
        return
    c, hours = made.costs, asked.config.sweep.budget_hours
    if c["seconds"] > 3600 * hours:
        raise RequestError(
            f"sweep.budget_hours={hours:g}: training takes about {duration(c['seconds'])} on {c['workers']} "
            f"{c['device']} worker(s) ({tokens(c['tokens_to_train'])} tokens, {c['flops_to_train']:.2g} FLOPs, "
            f"{size(c['disk'])} on disk); make the sweep smaller, or allow it with "
            f"sweep.budget_hours={math.ceil(1.5 * c['seconds'] / 3600)}"
        )
    needed, free = c["disk"] + c["disk_meanwhile"], shutil.disk_usage(asked.store.root).free
    if needed > free:
        raise RequestError(
            f"store={asked.store.root}: {size(free)} are free, and training needs about {size(needed)}; "
            "free some, make the sweep smaller, or name another store"
        )


def trainable(asked: Request, made: Plan) -> None:
    """`afford`, on this machine.

    Raises
    ------
    RequestError
        For what is left to train where the launcher is a cluster's, too.
    """
    if isinstance(asked.config.launch, Slurm) and missing(asked.store, made.runs):
        raise RequestError(
            "launch=slurm: `proxytrain submit` trains on the cluster; within a job, or here, it is launch=local"
        )
    afford(asked, made)


def train(asked: Request, made: Plan, console: Console) -> int:
    """Say what the plan is, and train it; exit code as of `launch.local.run`."""
    if not missing(asked.store, made.runs):
        return 0
    launch = asked.config.launch
    assert isinstance(launch, Local)  # `trainable` saw to it
    console.say("\n".join(plan_lines(made)))
    code = local.run(made, asked.store, machine(asked.config), launch, console)
    return code or int(bool(missing(asked.store, made.runs)))


def missing(store: Store, ids: Iterable[str]) -> list[str]:
    """Ids of the runs that have no result yet."""
    return [i for i in ids if not (store.run(i) / "result.json").exists()]


def table(store: Store, records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Finished runs as columns for a fit. `params` is non-embedding; `params_total` has all of them.

    Runs of one recipe and one trunk share its luck: `trunk` names it.
    """
    rows = []
    for record in records:
        result = store.result(record["id"])
        if result is None or result["status"] != "done":
            continue
        recipe = result["recipe"]
        rows.append(
            {
                "run": record["id"],
                "params": accounting.non_embedding(result["params"]),
                "params_total": sum(result["params"].values()),
                "width": recipe["model"]["width"],
                "tokens": result["tokens"],
                "flops": result["flops"],
                "loss": result["final_loss"],
                "loss_se": result["val_se"],
                "bits_per_byte": result["bits_per_byte"],
                "lr": result["lr"],
                "batch_tokens": recipe["batch_tokens"],
                "schedule": record["schedule"],
                "init_seed": recipe["init_seed"],
                "data_seed": recipe["data_seed"],
                "trunk": f"{result['recipe_id']}/{result['lr']:g}/{record['schedule']}",
            }
        )
    if not rows:
        raise Refusal("no finished run to fit: train the sweep first (`proxytrain sweep`), or see `proxytrain status`")
    return {key: [row[key] for row in rows] for key in rows[0]}


def fit(asked: Request, progress: Progress | None = None) -> Fit:
    """Fit the sweep's runs of the target's schedule: `fit.json`, and the table as `losses.csv`. Kept while both hold.

    Raises
    ------
    Refusal
        If the runs cannot answer.
    """
    options = asked.config.fit
    if options.schedule is None and asked.target_record:
        options = dataclasses.replace(options, schedule=asked.target_record["schedule"])
    return fit_runs(asked.store, asked.folder, asked.records, options, progress)


def fit_runs(
    store: Store,
    folder: Path,
    records: list[dict[str, Any]],
    options: FitConfig | None = None,
    progress: Progress | None = None,
) -> Fit:
    """`fit` of the runs of a sweep that lies in a folder; without options as it was fitted before."""
    columns = table(store, records)
    lines = [",".join(columns), *(",".join("" if v is None else str(v) for v in row) for row in zip(*columns.values()))]
    text = "\n".join(lines) + "\n"
    losses, path = folder / "losses.csv", folder / "fit.json"
    kept = None
    with suppress(RequestError):  # none, broken, or of another version: fitted again
        kept = load_fit(path)
    if isinstance(kept, Fit):
        options = options or kept.config
        same = losses.exists() and losses.read_text() == text
        if same and (kept.config, kept.versions["proxytrain"]) == (options, version("proxytrain")):
            return kept
    write_text(losses, text)
    result = fit_losses(losses, **vars(options or FitConfig()), progress=progress)
    result.save(path)
    return result


def curves(store: Store, records: list[dict[str, Any]]) -> list[Curve]:
    """Finished runs' loss curves: training losses of every update, and the validation loss at the end.

    Runs whose weights are averaged are left out: their end is not that of their curve.
    """
    out = []
    for record in records:
        result = store.result(record["id"])
        if result is None or result["status"] != "done" or record["schedule"] == "average":
            continue
        c = store.curve(record["id"])
        updates = len(c.step)
        out.append(
            Curve(
                lr=c.lr,
                step=c.step,
                loss=c.loss,
                params=float(accounting.non_embedding(result["params"])),
                tokens_per_step=float(result["recipe"]["batch_tokens"]),
                val_step=np.array([updates]),
                val_loss=np.array([result["final_loss"]]),
                order=str(result["recipe"]["data_seed"]),
                name=record["id"],
            )
        )
    if not out:
        raise Refusal("no finished run to fit: train the sweep first (`proxytrain sweep`), or see `proxytrain status`")
    return out


def target_rates(run: Run) -> np.ndarray:
    """Learning rate of each update of a run.

    Raises
    ------
    Refusal
        Where the run's loss is not that of its last update.
    """
    if run.schedule == "average":
        raise Refusal("schedule=average: the loss of averaged weights does not follow from learning rates alone")
    batch = run.recipe.batch_tokens
    return learning_rates(run.phases, np.arange(batch, run.tokens + 1, batch))


def predict(asked: Request, fitted: Fit) -> Prediction:
    """The target's loss with its interval, kept in `predictions.csv`.

    Raises
    ------
    Refusal
        If the target lies in a direction or at a distance that the runs do not support.
    """
    assert asked.target_record
    t = asked.target_record
    n = target_params(t, fitted.config.columns)
    answer = fitted.predict(**_place(asked, fitted, n, t["tokens"]))
    head = "run,params,tokens,schedule,loss,low,high,level,gap,note"
    row = [t["id"], n, t["tokens"], t["schedule"], answer.loss, answer.low, answer.high, answer.level, answer.gap]
    write_text(asked.folder / "predictions.csv", f'{head}\n{",".join(map(str, row))},"{answer.note}"\n')
    return answer


def _place(asked: Request, fitted: Fit, params: float, tokens: float) -> dict[str, float]:
    """The target as the fit takes it: size and length, or the one its law knows, if the other is that of its runs."""
    whole, only = {"params": float(params), "tokens": float(tokens)}, fitted.data["only"]
    if not only:
        return whole
    if only == "flops":  # of the best run at that compute
        return {"flops": 6 * whole["params"] * whole["tokens"]}
    (other,) = whole.keys() - {only}
    column = table(asked.store, asked.records)[dict(fitted.config.columns).get(other, other)]
    known = sorted({column[int(row) - 1] for row in fitted.runs["row"]})
    if known != [whole[other]]:
        raise Refusal(
            f"{fitted.main.bound.law.name} knows {only} alone: the target has {other}={whole[other]:.4g}, its runs "
            f"{', '.join(f'{v:.4g}' for v in known)}; take a law of both (fit.law=auto), or runs of that {other} only"
        )
    return {only: whole[only]}


def target_params(record: dict[str, Any], columns: Any) -> int:
    """N of a run as the fit counts it."""
    counts = record["params"]
    total = dict(columns or {}).get("params") == "params_total"
    return sum(counts.values()) if total else accounting.non_embedding(counts)


def caveats(asked: Request) -> list[str]:
    """What no law speaks of: jumps in the runs' curves, curves that cannot be read, and what sets the target apart from
    every run of the sweep beside its width and length.
    """
    found = _jumps(asked)
    if asked.target_record is None:
        return found
    for key, value in leaves(asked.target_record["config"]):
        values = {_get(r["config"], key) for r in asked.records}
        if key not in ("model.width", "tokens", "init_seed", "data_seed") and value not in values:
            known = ", ".join(sorted(map(str, values - {None})))
            found.append(
                f"the target has {key}={value}, the sweep's runs {known or 'do not'}: the law does not cover that"
            )
    return found


def _jumps(asked: Request) -> list[str]:
    """In words: runs whose loss falls at once, and those whose curve cannot tell because it is broken."""
    seen, found, broken = 0, [], []
    for record in asked.records:
        try:
            (curve,) = curves(asked.store, [record])
        except Refusal:  # not finished
            continue
        except (RequestError, OSError, ValueError, KeyError):
            broken.append(record["id"])
            continue
        seen += 1
        leap = jump(curve)
        found += [(leap, record)] if leap else []
    out = []
    if found:
        found.sort(key=lambda f: -f[0].excess)
        worst, record = found[0]
        width, batch = record["config"]["model"]["width"], record["config"]["batch_tokens"]
        out.append(
            f"UNSAFE: the loss of {len(found)} of {seen} runs falls in a jump ({_some([r['id'] for _, r in found])}), "
            f"most of all that of {record['id']} (width {width}): by {100 * worst.excess:.0f}% more between "
            f"{worst.start * batch:,} and {worst.end * batch:,} tokens than before at the same learning rate. A "
            "capability appears at once there, such as copying, and no law tells when it comes to larger models. To "
            "avoid it: token shift (model=gpt), text without long repeats (data=prose, or data.unit=line), or only "
            "runs that end long after it (more tokens)"
        )
    if broken:
        many = f"{len(broken)} run{'s' * (len(broken) > 1)}"
        out.append(f"curves of {many} cannot be read ({_some(broken)}): what they would warn of is not known")
    return out


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def truths(asked: Request) -> list[dict[str, Any]]:
    """Results of the target's runs that have been trained."""
    return [result for run in asked.targets if (result := asked.store.result(run.id))]


def diverged(asked: Request) -> list[str]:
    """Ids of the runs that diverged."""
    return [r["id"] for r in asked.records if (asked.store.result(r["id"]) or {}).get("status") == "diverged"]


def newer(page: Path, asked: Request) -> bool:
    """Whether the page was written after all that it shows."""
    shown = [asked.folder / "fit.json", *(asked.store.run(r["id"]) / "result.json" for r in asked.records)]
    shown += [asked.store.run(run.id) / "result.json" for run in asked.targets]
    times = [p.stat().st_mtime_ns for p in shown if p.exists()]
    return page.exists() and page.stat().st_mtime_ns > max(times, default=0)


def progress_of(store: Store, name: str) -> watch.Progress:
    """How far a sweep is, run by run: done, diverged, failed, running or waiting, and why."""
    return watch.Watch(freeze.load(store.sweep(name) / "plan.json"), store).look()


def _workable(made: Plan, store: Store) -> bool:
    """Whether workers can go on with a plan, what failed included; not where states are gone that it does not make."""
    lost = [why for _, why in failures(made, store)]
    return bool(lost or unfinished(made, store)) and not any(why["traceback"] == NOT_PLANNED for why in lost)


def _reseeded(config: Config, by: int) -> Config:
    data_seed = None if config.data_seed is None else config.data_seed + by
    return dataclasses.replace(config, init_seed=config.init_seed + by, data_seed=data_seed)


def _of_text(done: int, total: int | None, what: str) -> tuple[float | None, str]:
    """How far the corpus is, as the console shows it."""
    return done / total if total else None, f"{what}, {done / 1e6:.0f} MB" if done else what


def _check_fit(config: Config) -> None:
    """A law that does not exist must not be found out after hours of training."""
    name = config.fit.law
    if name in ("optimum", "critical_batch"):
        raise RequestError(
            f"fit.law={name}: is what `proxytrain fit` fits to trained runs; a sweep predicts by a law of loss"
        )
    if name != "auto":
        get_law(name)


def _get(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _check_text(run: Run, corpus: Corpus) -> None:
    recipe, m = run.recipe, corpus.manifest
    if m.train_tokens <= recipe.batch_tokens:
        raise RequestError(
            f"batch_tokens={recipe.batch_tokens}: the corpus has only {m.train_tokens} training tokens; "
            "give more text or a smaller batch"
        )
    if m.val_tokens <= recipe.model.context:
        raise RequestError(
            f"model.context={recipe.model.context}: the validation set has only {m.val_tokens} tokens; "
            "give more text, a larger data.val_fraction or a shorter context"
        )


def _check_repeats(runs: list[Run], corpus: Corpus, allowed: bool, console: Console) -> None:
    """A run that would see text twice is said, or refused."""
    longest = max(runs, key=lambda r: r.tokens)
    epochs = Stream(corpus.train, longest.recipe.model.context, 0).epochs(longest.tokens)
    if epochs <= 1:
        return
    text = (
        f"{longest.tokens} tokens read the corpus of {corpus.manifest.train_tokens} training tokens {epochs:.2f} times"
    )
    if not allowed:
        raise RequestError(f"data.allow_repeat=false: {text}; give more text, shorter runs, or data.allow_repeat=true")
    console.say(f"note: {text}; losses of repeated text are not those of fresh text")
