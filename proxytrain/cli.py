"""Verbs to functions, nothing else. `proxytrain VERB [overrides]`, the same as `python -m proxytrain VERB ...`.

Exit codes: 0 done; 1 some runs failed or the answer is a refusal; 2 the request is wrong (one line); 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxytrain.errors import Refusal, RequestError

Verb = Callable[[argparse.Namespace], int]
VERBS: dict[str, tuple[str, Verb]] = {}


def verb(text: str) -> Callable[[Verb], Verb]:
    """Enter a function as the verb of its name; `text` is its help."""

    def enter(function: Verb) -> Verb:
        VERBS[function.__name__] = (text, function)
        return function

    return enter


def main(argv: list[str] | None = None) -> int:
    """Run one verb; every way to go wrong ends in a line and an exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        from importlib.metadata import version

        print(version("proxytrain"))
        return 0
    if argv[0] not in VERBS:
        import difflib

        near = difflib.get_close_matches(argv[0], VERBS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        print(f"{argv[0]}: no such verb; there are {', '.join(VERBS)}{hint}", file=sys.stderr)
        return 2
    options = _options(argv[0], argv[1:])
    try:
        if options.cfg:
            return _print_config(options)
        return VERBS[argv[0]][1](options)
    except RequestError as error:
        if options.debug:
            raise
        print(f"proxytrain {argv[0]}: {error}", file=sys.stderr)
        return 2
    except Refusal as error:
        if options.debug:
            raise
        print(f"no answer: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # `proxytrain plan | head`
            sys.stderr.close()
            return 0
        if options.debug:
            raise
        print(f"proxytrain {argv[0]}: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


@verb("the main job: expand, plan, train what is missing, fit, predict the target, write the report")
def sweep(options: argparse.Namespace) -> int:
    from proxytrain import sweep as job
    from proxytrain.track.text import plan_lines

    asked, console = _request(options)
    made = job.plan(asked)
    left = job.missing(asked.store, asked.ids)
    if left:
        console.say("\n".join(plan_lines(made)))
    code = job.train(asked, made, console)
    if code == 130:
        raise KeyboardInterrupt
    if code and job.missing(asked.store, asked.ids):
        console.say(f"some runs failed; `proxytrain status{_where(asked)} sweep.name={asked.name}` says why")
        return 1
    return _conclude(asked)


@verb("the same up to training: runs, segments, packs, what sharing saves, time, memory, disk; trains nothing")
def plan(options: argparse.Namespace) -> int:
    from proxytrain import sweep as job
    from proxytrain.track.text import pack_lines, plan_lines

    asked, _ = _request(options)
    made = job.plan(asked)
    print("\n".join([*plan_lines(made), *pack_lines(made)]))
    return 0


@verb("one run; `-m` and Hydra's launchers and sweepers work too")
def train(options: argparse.Namespace) -> int:
    from proxytrain import sweep as job

    if options.multirun:
        return _multirun(options)
    asked, console = _request(options)
    return _train_one(asked, job, console)


@verb("write the plan and a SLURM script (launch=slurm), submit it as an array of workers, print its job, leave")
def submit(options: argparse.Namespace) -> int:
    from proxytrain import sweep as job
    from proxytrain.config import Slurm
    from proxytrain.launch import script, slurm
    from proxytrain.launch.machine import machine
    from proxytrain.launch.parts import unfinished
    from proxytrain.track.text import plan_lines

    launch = _config(options).launch
    if not isinstance(launch, Slurm):
        raise RequestError(f"launch={launch.name}: submit needs launch=slurm")
    script.check(launch)
    if not options.dry_run:
        slurm.needs("sbatch")
    asked, console = _request(options)
    made = job.plan(asked)
    folder, named = asked.folder.resolve(), f"{_where(asked)} sweep.name={asked.name}"
    packs = unfinished(made, asked.store)
    if not options.dry_run:
        if not job.missing(asked.store, asked.ids):
            print(
                f"{asked.name}: all {len(asked.ids)} runs are done, nothing to submit; `proxytrain report` has the page"
            )
            return 0
        if not packs:
            print(f"{asked.name}: what is left has failed; `proxytrain retry{named}` clears that", file=sys.stderr)
            return 1
    console.say("\n".join(plan_lines(made)))
    if launch.workers > len(packs):
        console.say(f"note: {launch.workers} workers for {len(packs)} packs; those without one wait for the others")
    scripts = script.scripts(launch, folder, machine(asked.config).device, options.overrides, options.config_dir)
    if options.dry_run:
        print("\n".join(scripts.values()), end="")
        return 0
    for what, id in slurm.submit(launch, folder, scripts).items():
        print(f"job {id}: {folder}/slurm/{what}.sh")
    print(f"`proxytrain status{named}` follows it, `proxytrain cancel{named}` stops it; all that is saved stays")
    return 0


@verb("take a sweep's jobs out of the SLURM queue; workers save, and another submit goes on")
def cancel(options: argparse.Namespace) -> int:
    from proxytrain.launch import slurm
    from proxytrain.plan import freeze
    from proxytrain.store import Store

    config = _config(options)
    folder = Store(config.store).sweep(config.sweep.name)
    freeze.load(folder / "plan.json")
    ids = slurm.cancel(folder)
    print(f"{config.sweep.name}: " + (f"cancelled {', '.join(ids)}; submit goes on" if ids else "no job in the queue"))
    return 0


@verb("clear a sweep's failures: the next sweep, submit or work tries those runs again")
def retry(options: argparse.Namespace) -> int:
    from proxytrain.launch import parts
    from proxytrain.plan import freeze
    from proxytrain.store import Store

    config = _config(options)
    store = Store(config.store)
    cleared = parts.retry(freeze.load(store.sweep(config.sweep.name) / "plan.json"), store)
    print(f"{config.sweep.name}: {cleared} failures cleared")
    return 0


@verb("take packs from a plan until none is left: what sweep starts, and what a cluster's tasks run")
def work(options: argparse.Namespace) -> int:
    from proxytrain.config import Slurm
    from proxytrain.launch import slurm
    from proxytrain.launch.machine import device
    from proxytrain.launch.worker import Stop
    from proxytrain.launch.worker import work as worker
    from proxytrain.plan import freeze
    from proxytrain.store import Store

    config = _config(options)
    launch = config.launch
    store = Store(config.store)
    made = freeze.load(store.sweep(config.sweep.name) / "plan.json")
    stop = Stop(None if isinstance(launch, Slurm) else launch.time_limit)
    if isinstance(launch, Slurm):
        slurm.begin(made.name)
    code = worker(made, store, device(config), launch, stop)
    return slurm.leave(code, stop.why, launch.requeue) if isinstance(launch, Slurm) else code


@verb("what is done, running, waiting and failed, and why; without sweep.name, of all sweeps")
def status(options: argparse.Namespace) -> int:
    from proxytrain import housekeeping
    from proxytrain import sweep as job
    from proxytrain.store import Store
    from proxytrain.track.text import disk_line, run_lines

    config = _config(options)
    store = Store(config.store)
    named = _named(options)
    names = [config.sweep.name] if named else store.sweeps()
    if not names:
        print(f"no sweep in {store.root}")
        return 0
    queue = _queue(store, names)
    failed = False
    content = {}
    for name in names:
        try:
            state = job.progress_of(store, name)
        except RequestError as error:
            if named:
                raise
            print(f"{name}: {error}", file=sys.stderr)
            continue
        counts: dict[str, int] = {}
        for run in state["runs"].values():
            counts[run["state"]] = counts.get(run["state"], 0) + 1
        failed = failed or "failed" in counts
        content[name] = {"counts": counts, "runs": state["runs"], "jobs": [vars(j) for j in queue.get(name, [])]}
        if options.check:
            wrong = list(housekeeping.problems(store, state["plan"]))
            content[name]["problems"] = wrong
            failed = failed or bool(wrong)
        if not options.json:
            print(f"{name}: " + ", ".join(f"{n} {what}" for what, n in sorted(counts.items())))
            if name in queue and set(counts) != {"done"}:
                idle = f"none in the queue (logs: {store.sweep(name)}/slurm); submit goes on"
                print(f"  jobs: {'; '.join(map(str, queue[name])) or idle}")
            if named or "failed" in counts:
                print("\n".join(run_lines(state, everything=named)))
            if options.check:
                print("\n".join(f"  {line}" for line in wrong) if wrong else "  checked: all files are whole")
    if not options.json:
        print(f"disk of {store.root}: {disk_line(housekeeping.disk_use(store))}")
    if options.json:
        print(json.dumps(content, indent=1))
    return 1 if failed else 0


@verb(
    "free disk: states that nothing waits for and what the dead left; train.keep_weights=none|final|all says what stays"
)
def gc(options: argparse.Namespace) -> int:
    from proxytrain.housekeeping import collect
    from proxytrain.store import Store
    from proxytrain.track.text import size

    config = _config(options)
    store = Store(config.store)
    went = collect(store, config.train.keep_weights, dry_run=options.dry_run)
    for kind, (count, amount) in went.items():
        print(f"{count} {kind}, {size(amount)}")
    total = size(sum(amount for _, amount in went.values()))
    print(f"{'would free' if options.dry_run else 'freed'} {total} in {store.root}")
    return 0


@verb("fit laws to a sweep's runs, any table (table=losses.csv) or loss curves (curves=DIR); writes fit.json")
def fit(options: argparse.Namespace) -> int:
    from proxytrain import sweep as job

    config = _config(options)
    path = Path(config.file or "fit.json")
    if path.is_dir() or not path.parent.is_dir():
        raise RequestError(f"file={path}: {'a folder' if path.is_dir() else 'its folder does not exist'}; name a file")
    if config.compare:
        return _compare(config)
    if config.table == "":
        raise RequestError("table=: empty; give the path of a CSV or Parquet file, or leave the key out")
    if config.table is not None and config.curves is not None:
        raise RequestError(f"table={config.table}, curves={config.curves}: a fit reads one of them")
    if config.fit.law == "critical_batch":
        return _fit_critical_batch(options, config, path)
    if config.curves is not None:
        return _fit_curves(options, config, path)
    if config.table is not None:
        return _fit_table(config, path, options)
    asked, _ = _request(options)
    result = job.fit(asked)
    if config.file:
        result.save(path)
    else:
        path = asked.folder / "fit.json"
    print("\n".join(result.summary()))
    print(f"written to {path}")
    return 0


def _fit_table(config: Any, path: Path, options: argparse.Namespace) -> int:
    """Fit a table, predict the run that was named beside it, and leave all that a reader needs beside the fit."""
    from proxytrain.fit import fit_losses
    from proxytrain.report import write_table

    with _at_work("fitting laws, holding out the largest runs", options):
        result = fit_losses(config.table, **vars(config.fit))
    place, refused = _place(options, config), None
    if place:
        try:
            result = result.aimed(**place)
        except Refusal as refusal:
            refused = refusal
    result.save(path)
    print("\n".join(result.summary()))
    for what, file in zip(("fit", "report", "predictions"), (path, *write_table(result, path))):
        print(f"{what}: {file}")
    if refused:
        raise refused
    return 0


@verb("loss with interval from a fit.json: params=7e9 tokens=2e12, or the sweep's target")
def predict(options: argparse.Namespace) -> int:
    from proxytrain.fit import CurveFit, Fit, load_fit
    from proxytrain.track.text import sentence

    config = _config(options)
    given = {o.partition("=")[0].lstrip("+") for o in options.overrides}
    place = _place(options, config)
    if config.file and isinstance(load_fit(config.file), CurveFit):
        return _predict_curve(options, config, load_fit(config.file))
    if not place and config.file:
        raise RequestError("params=null: give params=... with file=..., such as params=7e9")
    if not place or ("params" not in place and not config.file and _named(options)):
        asked, _ = _request(options)
        if not asked.target:
            raise RequestError("params=null: give params=... and tokens=..., or a sweep with a target")
        print("\n".join(_answer(asked)))
        return 0
    path = _fit_file(options, config)
    fitted = load_fit(path)
    if not isinstance(fitted, Fit):
        return _predict_curve(options, config, fitted)
    anyway = fitted.config.allow_extrapolation or config.fit.allow_extrapolation
    fitted = replace(fitted, config=replace(fitted.config, allow_extrapolation=anyway))
    level = config.fit.level if "fit.level" in given else None
    answer = fitted.predict(**place, level=level)
    if options.json:
        print(json.dumps(vars(answer), indent=1))
    else:
        words = {"params": "parameters", "tokens": "tokens", "flops": "FLOPs"}
        print(sentence(answer, ", ".join(f"{v:,.0f} {words[c]}" for c, v in place.items()), str(path)))
    return 0


@verb("train the target and show prediction against truth")
def verify(options: argparse.Namespace) -> int:
    from proxytrain import sweep as job
    from proxytrain.track.text import plan_lines

    asked, console = _request(options)
    if not asked.target:
        raise RequestError(
            "sweep.target=null: nothing to verify; name the larger run, as sweep.target={model:{width:128}}"
        )
    if job.missing(asked.store, asked.ids):
        raise RequestError(f"sweep.name={asked.name}: its runs are not all trained; `proxytrain sweep` first")
    if job.truth(asked) is None:
        made = job.plan(asked, runs=[asked.target], name=f"{asked.name}.verify")
        console.say("\n".join(plan_lines(made)))
        code = job.train(asked, made, console)
        if code == 130:
            raise KeyboardInterrupt
        if code:
            raise Refusal(
                f"the target's run failed; see `proxytrain status{_where(asked)} sweep.name={asked.name}.verify`"
            )
    return _conclude(asked)


@verb("one self-contained HTML page with figures")
def report(options: argparse.Namespace) -> int:
    asked, _ = _request(options)
    _write_report(asked)
    return 0


def _fit_curves(options: argparse.Namespace, config: Any, path: Path) -> int:
    """Laws of whole loss curves: of a folder, or (`curves=sweep`) of a sweep's own runs, and then of its target."""
    from proxytrain import sweep as job
    from proxytrain.fit import fit_curves
    from proxytrain.report.curves import draw_curves

    wanted = {"law": config.fit.law, "level": config.fit.level, "allow_extrapolation": config.fit.allow_extrapolation}
    asked = None
    if config.curves == "sweep":
        asked, _ = _request(options)
        with _at_work("fitting curve laws, holding out schedules, lengths and sizes", options):
            result = fit_curves(job.curves(asked), **wanted)
        path = path if config.file else asked.folder / "curve_fit.json"
    else:
        with _at_work("fitting curve laws, holding out schedules, lengths and sizes", options):
            result = fit_curves(config.curves, **wanted)
    result.save(path)
    picture = draw_curves(result, path.with_name(f"{path.stem}_curves"))
    print("\n".join(result.summary()))
    if asked and asked.target:
        n = float(job.target_params(asked.target_record, None))
        answer = result.predict(job.target_rates(asked.target), params=n)
        print(_curve_sentence(result, answer, f"{n:,.0f} parameters, {asked.target.tokens:,} tokens"))
        truth = job.truth(asked)
        if truth and truth["status"] == "done":
            print(f"truth: {truth['final_loss']:.4f}; error {answer.final[0] / truth['final_loss'] - 1:+.2%}")
    print(f"written to {path}; pictures: {', '.join(map(str, picture))}")
    return 0


def _predict_curve(options: argparse.Namespace, config: Any, fitted: Any) -> int:
    """The whole curve of a run under the composed schedule, as CSV, and its end."""
    import numpy as np

    from proxytrain.schedule import learning_rates, phases
    from proxytrain.store import write_text

    if config.tokens is None:
        raise RequestError("tokens=null: a curve has a length; give tokens, batch_tokens, lr, warmup and schedule")
    batch = config.batch_tokens
    if config.tokens < batch:
        raise RequestError(f"tokens={config.tokens}: shorter than one update of batch_tokens={batch}")
    known = fitted.data.get("tokens_per_step")
    if known and known != batch:
        raise RequestError(f"batch_tokens={batch}: the curves were trained with {known:g} tokens an update")
    plan = phases(config.schedule, lr=config.lr, warmup=config.warmup, tokens=config.tokens, batch_tokens=batch)
    position = np.arange(batch, config.tokens + 1, batch)
    rates = learning_rates(plan, position)
    level = config.fit.level if any(o.startswith("fit.level=") for o in options.overrides) else None
    fitted = replace(fitted, allow_extrapolation=fitted.allow_extrapolation or config.fit.allow_extrapolation)
    answer = fitted.predict(rates, params=config.params, level=level)
    columns = (np.arange(1, len(rates) + 1), position, rates, answer.loss, answer.low, answer.high)
    rows = (f"{s},{t},{r:.6g},{a:.6g},{b:.6g},{c:.6g}" for s, t, r, a, b, c in zip(*columns))
    path = Path(config.file).with_name("predicted_curve.csv") if config.file else Path("predicted_curve.csv")
    write_text(path, "\n".join(["step,tokens,lr,loss,low,high", *rows]) + "\n")
    loss, low, high = answer.final
    if options.json:
        print(
            json.dumps({"loss": loss, "low": low, "high": high, "level": answer.level, "note": answer.note}, indent=1)
        )
        return 0
    size = f"{config.params:,.0f} parameters, " if config.params else ""
    print(_curve_sentence(fitted, answer, f"{size}{config.tokens:,} tokens, {config.schedule.name}"))
    decay = fitted.best_decay(len(rates), config.params, warmup=config.warmup // batch)
    print(
        f"best linear decay for this length: the last {decay.best:.0%} "
        f"({decay.as_good[0]:.0%} to {decay.as_good[1]:.0%} may be as good), loss {decay.loss.min():.4f}"
    )
    print(f"the whole curve: {path}")
    return 0


def _curve_sentence(fitted: Any, answer: Any, what: str) -> str:
    loss, low, high = answer.final
    of = "validation loss" if fitted.predicts == "validation" else "loss"
    text = (
        f"predicted {of} at the end of one run with {what}: {loss:.4f}, {answer.level:.0%} interval "
        f"[{low:.4f}, {high:.4f}] ({low / loss - 1:+.1%}, {high / loss - 1:+.1%})"
    )
    return f"{answer.note}: {text}" if answer.note else text


def _train_one(asked: Any, job: Any, console: Any) -> int:
    """`train` is a sweep of one, named by the run."""
    from proxytrain.track.text import plan_lines, result_lines

    if len(asked.runs) != 1:
        raise RequestError(f"sweep.grids: {len(asked.runs)} runs; `train` trains one, `sweep` trains grids")
    run = asked.runs[0]
    made = job.plan(asked, name=f"run-{run.id}")
    if job.missing(asked.store, asked.ids):
        console.say("\n".join(plan_lines(made)))
    code = job.train(asked, made, console)
    if code == 130:
        raise KeyboardInterrupt
    result = asked.store.result(run.id)
    if result is None:
        raise Refusal(f"the run failed; `proxytrain status{_where(asked)} sweep.name=run-{run.id}` says why")
    print("\n".join(result_lines(asked.store, result)))
    return 0 if result["status"] == "done" else 1


def _multirun(options: argparse.Namespace) -> int:
    """`train` under `hydra.main`, for `-m` with Hydra's own sweepers and launchers; a job returns its final loss."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from proxytrain import sweep as job
    from proxytrain.compose import conf_dir
    from proxytrain.track.console import Console

    def one(config: Any) -> float:
        console = Console(options.quiet)
        try:
            asked = job.request(list(HydraConfig.get().overrides.task), options.config_dir, console)
            _train_one(asked, job, console)
        except RequestError as error:  # Hydra would show a traceback
            print(f"proxytrain train: {error}", file=sys.stderr)
            sys.exit(2)
        result = asked.store.result(asked.runs[0].id) or {}
        return float(result.get("final_loss") or "nan")

    search = ["--config-dir", options.config_dir] if options.config_dir else []
    sys.argv = ["proxytrain", "--multirun", *search, *options.overrides]
    hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(one)()
    return 0


def _answer(asked: Any) -> list[str]:
    """Fit, predict the target, and hold it against the truth where that is known."""
    from proxytrain import sweep as job
    from proxytrain.track.text import answer_lines

    fitted = job.fit(asked)
    return answer_lines(asked, fitted, job.predict(asked, fitted), job.caveats(asked), job.truth(asked))


def _conclude(asked: Any) -> int:
    """Print the answer and write the page, which also shows why there is no answer."""
    from proxytrain import sweep as job

    lost = job.diverged(asked)
    if lost:
        print(f"{len(lost)} of {len(asked.runs)} runs diverged and are left out: {', '.join(lost[:6])}")
    try:
        if asked.target:
            print("\n".join(_answer(asked)))
        else:
            print(f"{len(asked.runs)} runs done; no target to predict (sweep.target)")
    finally:  # a refusal has its page too
        page = asked.folder / "report.html"
        if not job.newer(page, asked):
            _write_report(asked)
        else:
            print(f"report: {page}")
    return int(len(lost) == len(asked.runs))


def _fit_critical_batch(options: argparse.Namespace, config: Any, path: Path) -> int:
    """B_crit of a table or folder of curves at several batch sizes, or of a sweep's own runs."""
    from proxytrain import sweep as job
    from proxytrain.fit import fit_critical_batch

    curves = config.table if config.table is not None else config.curves
    if curves in (None, "sweep"):
        asked, _ = _request(options)
        curves, path = job.curves(asked), path if config.file else asked.folder / "critical_batch.json"
    result = fit_critical_batch(curves, level=config.fit.level, seed=config.fit.seed)
    result.save(path)
    print("\n".join(result.summary()))
    print(f"written to {path}")
    return 0


def _compare(config: Any) -> int:
    """Two tables of two recipes: which is better at which compute."""
    from proxytrain.fit import compare, fit_losses

    if len(config.compare) != 2:
        raise RequestError(f"compare={config.compare}: two tables are compared, such as compare=[a.csv,b.csv]")
    a, b = (fit_losses(table, **vars(config.fit)) for table in config.compare)
    result = compare(a, b, tokens_per_param=float(config.tokens_per_param or 20), level=config.fit.level)
    print("\n".join(result.summary(*config.compare)))
    return 0


def _write_report(asked: Any) -> None:
    from proxytrain.report import write

    print(f"report: {write(asked, asked.folder / 'report.html')}")


def _fit_file(options: argparse.Namespace, config: Any) -> Path:
    """The fit.json that was asked for: by `file`, by a sweep's name, else the one in this folder."""
    from proxytrain.store import Store

    own = Store(config.store).sweep(config.sweep.name) / "fit.json"
    places = [Path(config.file)] if config.file else [own] if _named(options) else [Path("fit.json"), own]
    for path in places:
        if path.exists():
            return path
    raise RequestError(
        f"file={config.file or 'null'}: no {' and no '.join(map(str, places))}; `proxytrain fit` writes it"
    )


def _queue(store: Any, names: list[str]) -> dict[str, list[Any]]:
    """Jobs of the sweeps that were submitted, by name; {} where there are none, or no queue to ask."""
    from proxytrain.launch import slurm

    submitted = {name: store.sweep(name) for name in names if (store.sweep(name) / "slurm").is_dir()}
    if not submitted:
        return {}
    try:
        found = slurm.queue()
    except RequestError as error:
        print(error, file=sys.stderr)
        return {}
    return {name: found.get(str(folder.resolve()), []) for name, folder in submitted.items()}


@contextmanager
def _at_work(text: str, options: argparse.Namespace) -> Iterator[None]:
    """A line with a moving sign on a terminal, gone when the work is done."""
    from rich.console import Console

    console = Console(stderr=True)
    if options.quiet or not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


def _place(options: argparse.Namespace, config: Any) -> dict[str, float]:
    """The run that was named on the command line: two of params, tokens and flops, or one."""
    given = {o.partition("=")[0].lstrip("+") for o in options.overrides}
    return {c: getattr(config, c) for c in ("params", "tokens", "flops") if c in given}


def _where(asked: Any) -> str:
    return "" if str(asked.store.root) == "runs" else f" store={asked.store.root}"


def _request(options: argparse.Namespace) -> tuple[Any, Any]:
    from proxytrain import sweep as job
    from proxytrain.track.console import Console

    console = Console(options.quiet)
    return job.request(options.overrides, options.config_dir, console), console


def _named(options: argparse.Namespace) -> bool:
    """Whether a sweep was asked for by name."""
    return any(o.startswith(("sweep.name=", "experiment=")) for o in options.overrides)


def _config(options: argparse.Namespace) -> Any:
    from proxytrain.compose import compose
    from proxytrain.config import Config, build

    return build(Config, compose(options.overrides, options.config_dir))


def _print_config(options: argparse.Namespace) -> int:
    from omegaconf import OmegaConf

    from proxytrain.compose import compose

    print(OmegaConf.to_yaml(compose(options.overrides, options.config_dir)), end="")
    return 0


def _options(name: str, argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"proxytrain {name}",
        description=VERBS[name][0],
        epilog=(_laws() if name == "fit" else "") + _keys(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides, such as model.width=64")
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of yours laid out like conf/, searched too")
    parser.add_argument("--cfg", choices=["job"], help="print the composed configuration and leave")
    parser.add_argument("--quiet", action="store_true", help="answers only, no progress")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    if name == "submit":
        parser.add_argument("--dry-run", action="store_true", help="print the script; submit nothing")
    if name in ("status", "predict"):
        parser.add_argument("--json", action="store_true", help="print JSON")
    if name == "status":
        parser.add_argument("--check", action="store_true", help="read all files: are they whole, does all agree?")
    if name == "gc":
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    if name == "train":
        parser.add_argument(
            "-m", "--multirun", action="store_true", help="Hydra's multirun: lists of values, launchers"
        )
    return parser.parse_intermixed_args(argv)


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{width}}  {text}" for name, (text, _) in VERBS.items())
    return (
        "proxytrain VERB [KEY=VALUE ...]: predict the loss of a large language model from a grid of tiny ones\n\n"
        f"{verbs}\n\nStart with:  proxytrain sweep experiment=quickstart\n"
        "proxytrain VERB --help shows flags, groups and keys with their defaults."
    )


def _laws() -> str:
    from proxytrain.fit.laws import law_lines

    return f"laws (fit.law=NAME):\n{law_lines()}\n\n"


def _keys() -> str:
    """Groups with their options, and the documented keys of `conf/config.yaml`."""
    from proxytrain.compose import conf_dir

    groups = []
    for folder in sorted(p for p in conf_dir().iterdir() if p.is_dir()):
        groups.append(f"  {folder.name}=" + "|".join(sorted(p.stem for p in folder.glob("*.yaml"))))
    keys = (conf_dir() / "config.yaml").read_text().partition("experiment: null\n")[2]
    return "groups (keys of each: conf/GROUP/OPTION.yaml, or --cfg job):\n" + "\n".join(groups) + f"\n\nkeys:\n{keys}"
