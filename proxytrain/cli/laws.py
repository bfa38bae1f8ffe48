"""Laws from a sweep, a table or loss curves, and what they predict."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import structs

from proxytrain.cli import ask, uses
from proxytrain.cli.verb import JSON, verb
from proxytrain.errors import Refusal, RequestError

BULK = {"laws", "runs", "draws", "correlations", "checksum"}


@verb("fit laws to a sweep's runs, any table (table=losses.csv) or loss curves (curves=DIR); writes fit.json", JSON)
def fit(options: argparse.Namespace) -> int:
    from proxytrain.sweep import main as job
    from proxytrain.sweep import results as outcomes

    config = ask.config(options)
    mode, sources = _mode(config), [s for s in (config.table, config.curves, config.wandb) if s is not None]
    if mode in uses.READS and len(sources) < 2:  # of two sources, a line says so below
        uses.check(mode, options, ("fit.columns",) if config.wandb else ())
    path = Path(config.file or "fit.json")
    if path.is_dir() or not path.parent.is_dir():
        raise RequestError(f"file={path}: {'a folder' if path.is_dir() else 'its folder does not exist'}; name a file")
    if config.compare:
        return _compare(options, config)
    if config.table == "":
        raise RequestError("table=: empty; give the path of a CSV or Parquet file, or leave the key out")
    if config.wandb is not None:
        config = _logged(config, path)
    if config.table is not None and config.curves is not None:
        raise RequestError(f"table={config.table}, curves={config.curves}: a fit reads one of them")
    if config.fit.law == "critical_batch":
        return _fit_critical_batch(options, config, path)
    if config.fit.law == "optimum":
        return _fit_optimum(options, config, path)
    if config.curves is not None:
        return _fit_curves(options, config, path)
    if config.table is not None:
        return _fit_table(config, path, options)
    asked, console = ask.request(options, mode)
    with console.at_work(ask.FITTING) as tell:
        result = job.fit(asked, tell)
    if config.file:
        result.save(path)
    else:
        path = asked.folder / "fit.json"
    beware = outcomes.caveats(asked)
    lines = [*result.summary(), *(f"warning: {w}" for w in beware), f"written to {path}"]
    ask.put(options, lines, {**_written(path), "warnings": [*result.warnings, *beware]})
    return 0


@verb("loss with interval from a fit.json: params=7e9 tokens=2e12, or the sweep's target", JSON)
def predict(options: argparse.Namespace) -> int:
    from proxytrain.fit import CurveFit, OptimumFit, load_fit
    from proxytrain.monitor.text import sentence

    config = ask.config(options)
    given = ask.given(options)
    place = ask.place(options, config)
    of_sweep = not place or ("params" not in place and ask.named(options))
    if of_sweep and not config.file:
        asked, console = ask.request(options, "predict")
        if not asked.target:
            raise RequestError("params=null: give params=... and tokens=..., or a sweep with a target")
        ask.put(options, *ask.answer(asked, console))
        return 0
    path = _fit_file(options, config)
    fitted = load_fit(path)
    kind = " of curves" if isinstance(fitted, CurveFit) else " of an optimum" if isinstance(fitted, OptimumFit) else ""
    uses.check(f"predict file={kind}" if config.file or kind else "predict params=", options)
    if isinstance(fitted, CurveFit):
        return _predict_curve(options, config, fitted)
    if isinstance(fitted, OptimumFit):
        return _predict_optimum(options, config, fitted)
    if not place:
        raise RequestError("params=null: give params=... with file=..., such as params=7e9")
    anyway = fitted.config.allow_extrapolation or config.fit.allow_extrapolation
    fitted = replace(fitted, config=replace(fitted.config, allow_extrapolation=anyway))
    level = config.fit.level if "fit.level" in given else None
    answer = fitted.predict(**place, level=level)
    words = {"params": "parameters", "tokens": "tokens", "flops": "FLOPs"}
    what = ", ".join(f"{v:,.0f} {words[c]}" for c, v in place.items())
    ask.put(options, [sentence(answer, what, str(path))], vars(answer))
    return 0


def _mode(config: Any) -> str:
    """Return what is fitted, as `uses` names it."""
    source = config.table is not None or config.wandb is not None
    if config.compare:
        return "fit compare="
    if config.fit.law in ("optimum", "critical_batch"):
        of_sweep = not source and config.curves in (None, "sweep")
        return f"fit fit.law={config.fit.law}{' sweep.name=' if of_sweep else ''}"
    if source:
        return "fit table="
    return "fit" if config.curves is None else "fit curves=sweep" if config.curves == "sweep" else "fit curves="


def _logged(config: Any, path: Path) -> Any:
    """The request with runs that were logged to W&B as its table, which is kept beside the fit."""
    from proxytrain.files.atomic import write_text
    from proxytrain.track.logged import read_logged

    if config.table is not None or config.curves is not None:
        raise RequestError(f"wandb={config.wandb}: a fit reads one of wandb, table and curves")
    table, what = read_logged(config.wandb, config.fit.columns or {})
    file = path.with_name(f"{path.stem}_wandb.csv")
    lines = [",".join(table), *(",".join(map(_cell, row)) for row in zip(*table.values()))]
    write_text(file, "\n".join(lines) + "\n")
    print(f"{what}: {file}", file=sys.stderr)
    return structs.replace(config, table=str(file), fit=replace(config.fit, columns={}))


def _cell(value: Any) -> str:
    """A value of a CSV file; texts are quoted where they must be."""
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text


def _fit_table(config: Any, path: Path, options: argparse.Namespace) -> int:
    """Fit a table, predict the run that was named beside it, and leave all that a reader needs beside the fit."""
    from proxytrain.fit import fit_losses
    from proxytrain.report import write_table

    with ask.console(options).at_work(ask.FITTING) as tell:
        result = fit_losses(config.table, **vars(config.fit), progress=tell)
    place, refused = ask.place(options, config), None
    if place:
        try:
            result = result.aimed(**place)
        except Refusal as refusal:
            refused = refusal
    result.save(path)
    files = {what: str(file) for what, file in zip(("report", "predictions", "figures"), write_table(result, path))}
    lines = [*result.summary(), *(f"{what}: {file}" for what, file in ({"fit": path} | files).items())]
    ask.put(options, lines, _written(path) | files | ({"refused": str(refused)} if refused else {}))
    if refused:
        raise refused
    return 0


def _fit_curves(options: argparse.Namespace, config: Any, path: Path) -> int:
    """Laws of whole loss curves: of a folder, or (`curves=sweep`) of a sweep's own runs, and then of its target."""
    from proxytrain.fit import fit_curves
    from proxytrain.monitor.text import truth_lines
    from proxytrain.report.curves import draw_curves
    from proxytrain.sweep import results as outcomes

    wanted = {k: getattr(config.fit, k) for k in ("law", "level", "allow_extrapolation", "columns")}
    asked = None
    if config.curves == "sweep":
        asked, console = ask.request(options, "fit curves=sweep")
        with console.at_work(ask.FITTING_CURVES) as tell:
            result = fit_curves(outcomes.curves(asked.store, asked.records), **wanted, progress=tell)
        path = path if config.file else asked.folder / "curve_fit.json"
    else:
        with ask.console(options).at_work(ask.FITTING_CURVES) as tell:
            result = fit_curves(config.curves, **wanted, progress=tell)
    result.save(path)
    picture = draw_curves(result, path.with_name(f"{path.stem}_curves"))
    lines, content = result.summary(), _written(path)
    if asked and asked.target:
        n = float(outcomes.target_params(asked.target_record, None))
        answer = result.predict(outcomes.target_rates(asked.target), params=n)
        lines.append(_curve_sentence(result, answer, f"{n:,.0f} parameters, {asked.target.tokens:,} tokens"))
        content["prediction"] = _curve_end(answer)
        loss, low, high = (float(v) for v in answer.final)
        lines += truth_lines(outcomes.truths(asked), loss, low, high, answer.level)
        content["truth"] = [t.final_loss for t in outcomes.truths(asked)]
    lines.append(f"written to {path}; pictures: {', '.join(map(str, picture))}")
    ask.put(options, lines, content | {"pictures": [str(p) for p in picture]})
    return 0


def _fit_critical_batch(options: argparse.Namespace, config: Any, path: Path) -> int:
    """B_crit of a table or folder of curves at several batch sizes, or of a sweep's own runs."""
    from proxytrain.analysis.critical_batch import fit_critical_batch
    from proxytrain.sweep import results as outcomes

    curves = config.table if config.table is not None else config.curves
    if curves in (None, "sweep"):
        asked, _ = ask.request(options, "fit fit.law=critical_batch sweep.name=", without="fit.law")
        curves, path = (
            outcomes.curves(asked.store, asked.records),
            path if config.file else asked.folder / "critical_batch.json",
        )
    result = fit_critical_batch(curves, level=config.fit.level, seed=config.fit.seed)
    result.save(path)
    ask.put(options, [*result.summary(), f"written to {path}"], _written(path))
    return 0


def _fit_optimum(options: argparse.Namespace, config: Any, path: Path) -> int:
    """Optimal learning rate (and batch) of a table, or of a sweep whose grids have several; then of its target."""
    from proxytrain.fit import fit_optimum
    from proxytrain.report.optimum import draw_optimum
    from proxytrain.sweep import results as outcomes

    table, asked = config.table, None
    if table is None:
        asked, _ = ask.request(options, "fit fit.law=optimum sweep.name=", without="fit.law")
        table, path = outcomes.table(asked.store, asked.records), path if config.file else asked.folder / "optimum.json"
    keys = {k: getattr(config.fit, k) for k in ("level", "schedule", "allow_extrapolation", "columns", "where", "rows")}
    result = fit_optimum(table, **keys)
    result.save(path)
    lines, content, refused = result.summary(), _written(path), None
    if asked and asked.target_record:
        t = asked.target_record
        n = outcomes.target_params(t, config.fit.columns)
        try:
            answer = result.predict(params=n, tokens=t.tokens, batch_tokens=_batch(result, config))
            lines.append(_optimum_line(answer))
            content["prediction"] = vars(answer)
        except Refusal as refusal:
            refused, content["refused"] = refusal, str(refusal)
    pictures = [str(p) for p in draw_optimum(result, path.with_suffix(""))]
    lines.append(f"written to {path}; pictures: {', '.join(pictures)}")
    ask.put(options, lines, content | {"pictures": pictures})
    if refused:
        raise refused
    return 0


def _predict_optimum(options: argparse.Namespace, config: Any, fitted: Any) -> int:
    """Optimal learning rate and batch of the run that was named."""
    place = ask.place(options, config)
    if set(place) != {"params", "tokens"}:
        raise RequestError("params, tokens: give both, such as params=7e9 tokens=2e12 (and batch_tokens to fix it)")
    given = "batch_tokens" in ask.given(options)
    level = config.fit.level if "fit.level" in ask.given(options) else None
    fitted = replace(fitted, allow_extrapolation=fitted.allow_extrapolation or config.fit.allow_extrapolation)
    batch = float(config.batch_tokens) if given else None
    answer = fitted.predict(**place, batch_tokens=batch, level=level)
    ask.put(options, [_optimum_line(answer)], vars(answer))
    return 0


def _batch(fitted: Any, config: Any) -> float | None:
    """The batch at which the best rate is asked for, where the law is one of the rate at a batch."""
    return None if "batch_tokens" in fitted.laws else float(config.batch_tokens)


def _optimum_line(answer: Any) -> str:
    """The answer in one sentence; a label of an unsafe answer comes first."""
    text = f"best learning rate {answer.lr:.4g} [{answer.lr_low:.4g}, {answer.lr_high:.4g}]"
    if answer.batch_low is not None:
        text += f", batch {answer.batch_tokens:,.0f} tokens [{answer.batch_low:,.0f}, {answer.batch_high:,.0f}]"
    elif answer.batch_tokens:
        text += f" at batches of {answer.batch_tokens:,.0f} tokens"
    text += f" ({answer.level:.0%} intervals); expected loss {100 * answer.regret:.2g}% above the optimum's"
    return f"{answer.note}: {text}" if answer.note else text


def _compare(options: argparse.Namespace, config: Any) -> int:
    """Two tables of two recipes: which is better at which compute."""
    from proxytrain.analysis.crossover import compare
    from proxytrain.fit import fit_losses

    if len(config.compare) != 2:
        raise RequestError(f"compare={config.compare}: two tables are compared, such as compare=[a.csv,b.csv]")
    a, b = (fit_losses(table, **vars(config.fit)) for table in config.compare)
    result = compare(a, b, tokens_per_param=float(config.tokens_per_param or 20), level=config.fit.level)
    ask.put(options, result.summary(*config.compare), vars(result))
    return 0


def _predict_curve(options: argparse.Namespace, config: Any, fitted: Any) -> int:
    """The whole curve of a run under the composed schedule, as CSV, and its end."""
    import numpy as np

    from proxytrain.config.schedule import learning_rates, phases
    from proxytrain.files.atomic import write_text

    if config.schedule.name == "average":
        raise RequestError("schedule=average: the loss of averaged weights does not follow from learning rates alone")
    if config.tokens is None:
        raise RequestError("tokens=null: a curve has a length; give tokens, batch_tokens, lr, warmup and schedule")
    batch = config.batch_tokens
    if config.tokens < batch:
        raise RequestError(f"tokens={config.tokens}: shorter than one update of batch_tokens={batch}")
    known = fitted.data.tokens_per_step
    if known and known != batch:
        raise RequestError(f"batch_tokens={batch}: the curves were trained with {known:g} tokens an update")
    plan = phases(config.schedule, lr=config.lr, warmup=config.warmup, tokens=config.tokens, batch_tokens=batch)
    position = np.arange(batch, config.tokens + 1, batch)
    rates = learning_rates(plan, position)
    level = config.fit.level if "fit.level" in ask.given(options) else None
    fitted = replace(fitted, allow_extrapolation=fitted.allow_extrapolation or config.fit.allow_extrapolation)
    answer = fitted.predict(rates, params=config.params, level=level)
    columns = (np.arange(1, len(rates) + 1), position, rates, answer.loss, answer.low, answer.high)
    rows = (f"{s},{t},{r:.6g},{a:.6g},{b:.6g},{c:.6g}" for s, t, r, a, b, c in zip(*columns))
    path = Path(config.file).with_name("predicted_curve.csv") if config.file else Path("predicted_curve.csv")
    write_text(path, "\n".join(["step,tokens,lr,loss,low,high", *rows]) + "\n")
    size = f"{config.params:,.0f} parameters, " if config.params else ""
    decay = fitted.best_decay(len(rates), config.params, warmup=config.warmup // batch)
    lines = [
        _curve_sentence(fitted, answer, f"{size}{config.tokens:,} tokens, {config.schedule.name}"),
        f"best linear decay for this length: the last {decay.best:.0%} "
        f"({decay.as_good[0]:.0%} to {decay.as_good[1]:.0%} may be as good), loss {decay.loss.min():.4f}",
        f"the whole curve: {path}",
    ]
    best = {"best": decay.best, "as_good": decay.as_good, "loss": decay.loss.min()}
    ask.put(options, lines, _curve_end(answer) | {"decay": best, "curve": str(path)})
    return 0


def _curve_end(answer: Any) -> dict[str, Any]:
    loss, low, high = answer.final
    return {"loss": loss, "low": low, "high": high, "level": answer.level, "note": answer.note}


def _written(path: Path) -> dict[str, Any]:
    """What a fit wrote, without its bulk: refits of the bootstrap, and the runs."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    kept = {k: v for k, v in whole.items() if k not in BULK}
    laws = whole.get("laws")
    weights = {law.get("name") or law["law"]: law["weight"] for law in laws} if isinstance(laws, list) else {}
    return {"fit": str(path), **kept, "weights": weights}


def _curve_sentence(fitted: Any, answer: Any, what: str) -> str:
    loss, low, high = answer.final
    of = "validation loss" if fitted.predicts == "validation" else "loss"
    text = (
        f"predicted {of} at the end of one run with {what}: {loss:.4f}, {answer.level:.0%} interval "
        f"[{low:.4f}, {high:.4f}] ({low / loss - 1:+.1%}, {high / loss - 1:+.1%})"
    )
    return f"{answer.note}: {text}" if answer.note else text


def _fit_file(options: argparse.Namespace, config: Any) -> Path:
    """The fit.json that was asked for: by `file`, by a sweep's name, else the one in this folder."""
    from proxytrain.store.store import Store

    own = Store(config.store).sweep(config.sweep.name) / "fit.json"
    of_store = ask.named(options) or "store" in ask.given(options)
    places = [Path(config.file)] if config.file else [own] if of_store else [Path("fit.json"), own]
    for path in places:
        if path.exists():
            return path
    raise RequestError(
        f"file={config.file or 'null'}: no {' and no '.join(map(str, places))}; `proxytrain fit` writes it"
    )
