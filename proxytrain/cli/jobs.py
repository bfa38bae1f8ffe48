"""From the request to the answer: sweep, plan, train, verify, report."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from proxytrain.cli import ask, uses
from proxytrain.cli.verb import JSON, flag, verb
from proxytrain.errors import Refusal, RequestError


@verb("the main job: expand, plan, train what is missing, fit, predict the target, write the report", JSON)
def sweep(options: argparse.Namespace) -> int:
    from proxytrain.monitor.watch import progress_of
    from proxytrain.sweep import main as job

    asked, console = ask.request(options, "sweep")
    made = job.plan(asked, job.trainable)
    with ask.mirrored(asked, asked.name, console):
        code = job.train(asked, made, console)
        if code == 130:
            raise KeyboardInterrupt
        if code and job.missing(asked.store, asked.ids):
            why = f"some runs failed; `proxytrain status{ask.where(asked)} sweep.name={asked.name}` says why"
            print(why, file=sys.stderr)
            if options.json:
                counts = progress_of(asked.store, asked.name).counts
                ask.put(options, [], {"sweep": asked.name, "runs": counts, "refused": why})
            return 1
        return _conclude(options, asked, console)


@verb("the same up to training: runs, segments, packs, what sharing saves, time, memory, disk; trains nothing", JSON)
def plan(options: argparse.Namespace) -> int:
    from proxytrain.corpus import preview
    from proxytrain.monitor.text import pack_lines, pack_rows, plan_lines
    from proxytrain.sweep import main as job

    asked, console = ask.request(options, "plan")
    made = job.plan(asked)
    try:
        job.afford(asked, made)
    except RequestError as error:  # planning is how one finds out
        console.say(f"note: {error}")
    speeds = job.speeds(asked)
    packs = pack_rows(made, speeds)
    content = {"sweep": made.name, **to_builtins(made.costs), "target": made.target, "packs": packs, "runs": made.runs}
    content["text"] = {**vars(preview(asked.corpus)), "notices": asked.corpus.manifest.notices or []}
    ask.put(options, [*plan_lines(made, asked.corpus), *pack_lines(packs, speeds)], content)
    return 0


@verb("measure updates of a sweep's packs on this machine, a few seconds each, so that plan and sweep know their times")
def probe(options: argparse.Namespace) -> int:
    from proxytrain.launch.machine import machine
    from proxytrain.launch.probe import probe as measure
    from proxytrain.sweep import main as job

    asked, console = ask.request(options, "probe")
    made = job.plan(asked)
    for line in measure(made, asked.store, machine(asked.config)):
        console.say(line)
    return 0


@verb(
    "one run; `-m` and Hydra's launchers and sweepers work too",
    flag("-m", "--multirun", help="Hydra's multirun: lists of values, launchers"),
)
def train(options: argparse.Namespace) -> int:
    if options.multirun:
        return _multirun(options)
    asked, console = ask.request(options, "train")
    return _train_one(asked, console)


@verb("RUN_ID schedule=... tokens=...: go on from a trained run's trunk under another ending, or for longer")
def branch(options: argparse.Namespace) -> int:
    from proxytrain.monitor.console import Console
    from proxytrain.sweep import branch as branching

    run_id = ask.first_word(options)
    if not run_id:
        raise RequestError("RUN_ID: say which run to branch from, as in `proxytrain branch 0123456789abcdef tokens=8M`")
    uses.check("branch", options)
    console = Console(options.quiet)
    return _train_one(branching.branch(run_id, options.overrides, options.config_dir, console), console)


@verb("train the target (verify.seeds=3: three times) and show prediction against truth", JSON)
def verify(options: argparse.Namespace) -> int:
    from proxytrain.sweep import main as job

    asked, console = ask.request(options, "verify")
    if not asked.target:
        raise RequestError(
            "sweep.target=null: nothing to verify; name the larger run, as sweep.target={model:{width:128}}"
        )
    if job.missing(asked.store, asked.ids):
        raise RequestError(f"sweep.name={asked.name}: its runs are not all trained; `proxytrain sweep` first")
    with ask.mirrored(asked, asked.name, console):
        if job.missing(asked.store, [run.id for run in asked.targets]):
            made = job.plan(asked, job.trainable, runs=asked.targets, name=f"{asked.name}.verify")
            code = job.train(asked, made, console)
            if code == 130:
                raise KeyboardInterrupt
            if code:
                raise Refusal(
                    f"the target's run failed; see `proxytrain status{ask.where(asked)} sweep.name={asked.name}.verify`"
                )
        return _conclude(options, asked, console)


@verb(
    "one self-contained HTML page with figures, of a sweep or of two side by side",
    flag("--compare", values=("A", "B"), help="hold two sweeps of the store against each other, by name"),
)
def report(options: argparse.Namespace) -> int:
    if options.compare:
        return _compare(options)
    asked, console = ask.request(options, "report")
    _check_words(asked)
    with ask.mirrored(asked, asked.name, console):
        print(f"report: {_write_report(asked, console)}")
    return 0


def _check_words(asked: Any) -> None:
    """A page is of what the words describe: those of another sweep must not replace it under this name."""
    from proxytrain.plan import freeze

    path = asked.folder / "plan.json"
    if path.exists() and freeze.load(path).request != asked.digest:
        raise RequestError(
            f"sweep.name={asked.name}: was planned with other runs or another target; give the words of its sweep "
            "again (experiment=..., grids, target), or `proxytrain plan` with these"
        )


def _compare(options: argparse.Namespace) -> int:
    from proxytrain.report import write_comparison
    from proxytrain.store.store import Store

    config, (a, b) = ask.config(options, "report --compare"), options.compare
    store = Store(config.store)
    page = store.sweep(a) / f"against-{store.sweep(b).name}" / "report.html"
    with ask.console(options).at_work("writing the report"):
        write_comparison(store, (a, b), config.tokens_per_param, page)
    print(f"report: {page}")
    return 0


def _train_one(asked: Any, console: Any) -> int:
    """`train` is a sweep of one, named by the run."""
    from proxytrain.monitor.text import result_lines
    from proxytrain.sweep import main as job

    if len(asked.runs) != 1:
        raise RequestError(f"sweep.grids: {len(asked.runs)} runs; `train` trains one, `sweep` trains grids")
    run = asked.runs[0]
    made = job.plan(asked, job.trainable, name=f"run-{run.id}")
    with ask.mirrored(asked, made.name, console):
        code = job.train(asked, made, console)
        if code == 130:
            raise KeyboardInterrupt
    result = asked.store.result(run.id)
    if result is None:
        raise Refusal(f"the run failed; `proxytrain status{ask.where(asked)} sweep.name=run-{run.id}` says why")
    print("\n".join(result_lines(asked.store, result)))
    return 0 if result.status == "done" else 1


def _multirun(options: argparse.Namespace) -> int:
    """`train` under `hydra.main`, for `-m` with Hydra's own sweepers and launchers; a job returns its final loss."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from proxytrain.config.compose import conf_dir
    from proxytrain.monitor.console import Console
    from proxytrain.sweep.request import request

    def one(config: Any) -> float:
        console = Console(options.quiet)
        try:
            asked = request(list(HydraConfig.get().overrides.task), options.config_dir, console)
            _train_one(asked, console)
        except RequestError as error:  # Hydra would show a traceback
            print(f"proxytrain train: {error}", file=sys.stderr)
            sys.exit(2)
        result = asked.store.done(asked.runs[0].id)
        return float(result.final_loss or "nan") if result else float("nan")

    uses.check("train", options)
    search = ["--config-dir", options.config_dir] if options.config_dir else []
    sys.argv = ["proxytrain", "--multirun", *search, *options.overrides]
    warnings.filterwarnings("ignore", "The version_base parameter is deprecated")  # in 1.4; 1.3 asks for it
    hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(one)()
    return 0


def _conclude(options: argparse.Namespace, asked: Any, console: Any) -> int:
    """Give the answer and write the page, which also shows why there is no answer."""
    from proxytrain.report.about import about, best_of
    from proxytrain.sweep import results as outcomes

    lost, refused = outcomes.diverged(asked), None
    lines: list[str] = []
    content: dict[str, Any] = {"sweep": asked.name, "runs": {"done": len(asked.ids) - len(lost), "diverged": len(lost)}}
    if lost:
        lines = [f"{len(lost)} of {len(asked.runs)} runs diverged and are left out: {', '.join(lost[:6])}"]
    if asked.target:
        try:
            more, found = ask.answer(asked, console)
            lines += more
            content |= found
        except Refusal as refusal:  # it has its page too
            refused, content["refused"] = refusal, str(refusal)
    if "warnings" not in content:  # without a prediction
        content["warnings"] = outcomes.caveats(asked)
        lines += [f"warning: {w}" for w in content["warnings"]]
    rows, rankings = _compared(asked)
    if not asked.target:
        lines.append(f"{len(asked.runs)} runs done; no target to predict (sweep.target)")
        lines += [f"{name}: {text}" for name, text in about(rows, ranked=bool(rankings))]
        best = best_of(rows)
        content["best"] = {"id": best.id, "loss": best.loss} if best else None
    for ranking in rankings:
        lines += ranking.summary()
        content.setdefault("rankings", []).append(ranking.content())
    page = asked.folder / "report.html"
    if not _up_to_date(page, asked):
        _write_report(asked, console)
    ask.put(options, [*lines, f"report: {page}"], content | {"report": str(page)})
    if refused:
        raise refused
    return int(len(lost) == len(asked.runs))


def _compared(asked: Any) -> tuple[list[Any], Any]:
    """The sweep's runs, and which recipes are better where several were tried at several rates."""
    from proxytrain.report.row import row_of
    from proxytrain.report.standing import standing
    from proxytrain.sweep.results import varied_keys

    varied = varied_keys(asked.records)
    rows = [row_of(record, asked.store, None, varied) for record in asked.records]
    found, _ = standing(asked, rows)
    return rows, found.rankings if found else ()


def _up_to_date(page: Path, asked: Any) -> bool:
    """Whether the page was written after all that it shows."""
    shown = [asked.folder / "fit.json", asked.folder / "curves.json"]
    shown += [asked.store.run(r.id) / "result.json" for r in asked.records]
    shown += [asked.store.run(run.id) / "result.json" for run in asked.targets]
    times = [p.stat().st_mtime_ns for p in shown if p.exists()]
    return page.exists() and page.stat().st_mtime_ns > max(times, default=0)


def _write_report(asked: Any, console: Any) -> Any:
    from proxytrain.report import write

    with console.at_work("writing the report"):
        return write(asked, asked.folder / "report.html")
