"""The main job, step by step: request -> plan -> training -> fit -> prediction.

Each function takes what the one before returned, so that the verbs are short chains of them.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from proxytrain.config.schema import Local, Slurm
from proxytrain.errors import Refusal, RequestError
from proxytrain.files.atomic import remove, write_text
from proxytrain.fit import CurveFit, Fit, FitConfig, Prediction, fit_curves, fit_losses, load_fit
from proxytrain.fit.core.steps import Progress
from proxytrain.fit.tables.table import as_labels, read_runs
from proxytrain.fit.together import together
from proxytrain.kernels.cache import compiler
from proxytrain.launch import local
from proxytrain.launch.machine import machine
from proxytrain.monitor.console import Console
from proxytrain.monitor.text import duration, plan_lines, size, tokens
from proxytrain.plan import cost, freeze, speed
from proxytrain.plan.claims import holder
from proxytrain.plan.freeze import Plan
from proxytrain.plan.parts import NOT_PLANNED, failures, unfinished
from proxytrain.plan.runs import Run
from proxytrain.plan.speed import Speeds
from proxytrain.store.documents import RunRecord
from proxytrain.store.store import Store
from proxytrain.sweep.request import Request
from proxytrain.sweep.results import curves, table, target_params, target_rates, telling

CURVE_LAW = "progress"  # alone about as good as the average of laws, in a half of its time
Check = Callable[[Request, Plan], None]  # raises RequestError


def plan(asked: Request, check: Check | None = None, *, runs: list[Run] | None = None, name: str | None = None) -> Plan:
    """The sweep's plan: the one on disk while the request is the same and work is left, else a new one.

    What `check` (`afford`, `trainable`) refuses is not written.
    """
    name = name or asked.name
    path = asked.store.sweep(name) / "plan.json"
    runs = asked.runs if runs is None else runs
    train = asked.config.train
    if path.exists():
        old = freeze.load(path)
        same = freeze.request_of(runs, asked.target) == old.request
        busy = {h.pid: h.host for p in path.parent.glob("packs/*/claim") if (h := holder(p.parent))}
        if busy and not same:
            who = ", ".join(f"{host} pid {pid}" for pid, host in busy.items())
            raise RequestError(f"sweep.name={name}: other runs are being trained under it ({who}); choose another name")
        made_for = (old.train.memory, old.train.device, old.costs.device)
        done = same and not missing(asked.store, [r.id for r in runs])
        fits = done or bool(busy) or made_for == (train.memory, train.device, machine(asked.config).device)
        if done or (same and fits and _workable(old, asked.store)):
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
        asked.target,
        store=asked.store,
        train=train,
        workers=here.workers,
        device=here.device,
        memory=here.memory,
        threads=here.threads,
        native=isinstance(asked.config.launch, Local) and cost.native(train, here.device, here.threads),
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
    if c.seconds > 3600 * hours:
        raise RequestError(
            f"sweep.budget_hours={hours:g}: training takes about {duration(c.seconds)} on {c.workers} "
            f"{c.device} worker(s) ({tokens(c.tokens_to_train)} tokens, {c.flops_to_train:.2g} FLOPs, "
            f"{size(c.disk)} on disk); make the sweep smaller, or allow it with "
            f"sweep.budget_hours={math.ceil(1.5 * c.seconds / 3600)}"
        )
    needed, free = c.disk + c.disk_meanwhile, shutil.disk_usage(asked.store.root).free
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
    here, trained = machine(asked.config), asked.config.train
    if cost.reference(trained.precision, here.device, here.threads) and shutil.which(compiler()) is None:
        console.say(f"note: no C++ compiler ({compiler()}) on the PATH: training takes 1.4 to 2 times as long")
    code = local.run(made, asked.store, here, launch, console)
    return code or int(bool(missing(asked.store, made.runs)))


def missing(store: Store, ids: Iterable[str]) -> list[str]:
    """Ids of the runs that have no result yet."""
    return [i for i in ids if not store.has_result(i)]


def fit(asked: Request, progress: Progress | None = None) -> Fit:
    """Fit the sweep's runs of the target's schedule: `fit.json`, and the table as `losses.csv`. Kept while both hold.

    Raises
    ------
    Refusal
        If the runs cannot answer.
    """
    options = asked.config.fit
    if options.schedule is None and asked.target_record:
        schedule = asked.target_record.schedule
        if schedule not in {r.schedule for r in asked.records}:
            raise Refusal(
                f"no run of the sweep has the target's schedule, {schedule}, and final losses under others do not tell "
                "of it: add some, or predict its whole curve (proxytrain fit curves=sweep)"
            )
        options = dataclasses.replace(options, schedule=schedule)
    if asked.target_record:
        where = _like(asked.target_record, table(asked.store, asked.records), options)
        options = dataclasses.replace(options, where={**where, **options.where})
    return fit_runs(asked.store, asked.folder, asked.records, options, progress)


def fit_runs(
    store: Store,
    folder: Path,
    records: list[RunRecord],
    options: FitConfig | None = None,
    progress: Progress | None = None,
) -> Fit:
    """`fit` of the runs of a sweep that lies in a folder; without options as it was fitted before."""
    columns = table(store, records)
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([columns, *zip(*columns.values())])
    text = lines.getvalue()
    losses, path = folder / "losses.csv", folder / "fit.json"
    kept = None
    with suppress(RequestError):  # none, broken, or of another version: fitted again
        kept = load_fit(path)
    if isinstance(kept, Fit):
        options = options or kept.config
        same = losses.exists() and losses.read_text() == text
        if same and (kept.config, kept.versions["proxytrain"]) == (options, version("proxytrain")):
            return kept
    write_text(losses, text)  # for people
    result = fit_losses(columns, **vars(options or FitConfig()), progress=progress)
    reading = [line for line in result.data.reading if line.startswith("rows: ")]  # the rest is ours
    data = dataclasses.replace(result.data, source=str(losses), reading=reading)
    result = dataclasses.replace(result, data=data)
    result.save(path)
    return result


def _like(target: RunRecord, columns: dict[str, list[Any]], options: FitConfig) -> dict[str, Any]:
    """The target's values of the settings in which runs of one size, length and seed differ, where runs have them.

    What belongs to a schedule is empty for runs of another one, which stay.
    """
    settings = read_runs(columns, options.columns).settings
    own = {key: str(as_labels([value])[0]) for key, value in target.settings.items() if key in settings}
    own = {key: value for key, value in own.items() if value in settings[key]}
    return {key: [value, ""] if key.startswith("schedule.") else value for key, value in own.items()}


def curve_fit(asked: Request, progress: Progress | None = None) -> CurveFit:
    """A law of whole curves fitted to those that tell most of the target: `curves.json`. Kept while that holds.

    Raises
    ------
    Refusal
        If the curves cannot tell.
    RequestError, OSError, ValueError, KeyError
        If one of them cannot be read.
    """
    level, path, chosen = asked.config.fit.level, asked.folder / "curves.json", telling(asked)
    made_of = ([r.id for r in chosen], level, version("proxytrain"))
    with suppress(RequestError):  # none, broken, or of another format: fitted again
        kept = load_fit(path)
        if isinstance(kept, CurveFit) and made_of == (kept.data.names, kept.level, kept.versions["proxytrain"]):
            return kept
    # how far is too far, final losses decide; far out, curves have wide bands, and so little weight
    every = curves(asked.store, chosen)
    result = fit_curves(every, CURVE_LAW, level=level, allow_extrapolation=True, progress=progress)
    result.save(path)
    return result


def predict(asked: Request, fitted: Fit, progress: Progress | None = None) -> Prediction:
    """The target's loss with its interval, kept in `predictions.csv`: by the runs' final losses and, unless a law of
    those was named, by their curves too, where these can tell.

    Raises
    ------
    Refusal
        If the target lies in a direction or at a distance that the final losses do not support.
    """
    assert asked.target_record
    t = asked.target_record
    n = target_params(t, fitted.config.columns)
    answer = fitted.predict(**_place(asked, fitted, n, t.tokens))
    if fitted.config.law == "auto":
        answer = _with_curves(asked, answer, progress)
    head = "run,params,tokens,schedule,loss,low,high,level,gap,final_losses,loss_curves,note"
    row = [t.id, n, t.tokens, t.schedule]
    row += [getattr(answer, c) for c in ("loss", "low", "high", "level", "gap")]
    row += [answer.parts.get(name, {}).get("loss", "") for name in ("final losses", "loss curves")]
    write_text(asked.folder / "predictions.csv", f'{head}\n{",".join(map(str, row))},"{answer.note}"\n')
    return answer


def _with_curves(asked: Request, ends: Prediction, progress: Progress | None) -> Prediction:
    """The answer of final losses together with that of curves; as it is, with the reason, where curves cannot tell."""
    assert asked.target
    assert asked.target_record
    try:
        rates = target_rates(asked.target)
        fitted = curve_fit(asked, progress)
        answer = together(ends, fitted.predict(rates, params=float(target_params(asked.target_record, None))))
    except (Refusal, RequestError, OSError, ValueError, KeyError) as error:
        return dataclasses.replace(ends, parts={"loss curves": {"refused": str(error)}})
    about = {"law": fitted.main.law.name, "curves": fitted.data.curves}
    return dataclasses.replace(answer, parts={**answer.parts, "loss curves": answer.parts["loss curves"] | about})


def _place(asked: Request, fitted: Fit, params: float, tokens: float) -> dict[str, float]:
    """The target as the fit takes it: size and length, or the one its law knows, if the other is that of its runs."""
    whole, only = {"params": float(params), "tokens": float(tokens)}, fitted.data.only
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


def _workable(made: Plan, store: Store) -> bool:
    """Whether workers can go on with a plan, what failed included; not where states are gone that it does not make."""
    lost = [why for _, why in failures(made, store)]
    return bool(lost or unfinished(made, store)) and not any(why == NOT_PLANNED for why in lost)
