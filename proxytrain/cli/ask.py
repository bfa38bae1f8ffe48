"""What verbs ask of the command line: the configuration, the sweep, the run that was named."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct, to_builtins

if TYPE_CHECKING:
    from proxytrain.config.schema import Config

FITTING = "fitting laws, holding out the largest runs"
FITTING_CURVES = "fitting curve laws, holding out schedules, lengths and sizes"


def config(options: argparse.Namespace, mode: str = "") -> Config:
    """Return the configuration; with a `mode` of the verb, overrides that it does not use are refused.

    Raises
    ------
    RequestError
        For overrides that do not compose, or that the verb does not use in this mode.
    """
    from proxytrain.cli import uses
    from proxytrain.config.compose import compose
    from proxytrain.config.schema import Config
    from proxytrain.config.section import build

    built = build(Config, compose(options.overrides, options.config_dir))
    if mode:
        uses.check(mode, options)
    return built


def request(options: argparse.Namespace, mode: str, *, without: str = "") -> tuple[Any, Any]:
    """Return the request and the console; `without` a key whose value is not the sweep's to read.

    Raises
    ------
    RequestError
        As `config` does, and for what could not be trained.
    """
    from proxytrain.cli import uses
    from proxytrain.config.overrides import read
    from proxytrain.sweep import request as asking

    shown = console(options)
    read(options.overrides)
    uses.check(mode, options)
    overrides = [o for o in options.overrides if not without or o.partition("=")[0] != without]
    return asking.request(overrides, options.config_dir, shown), shown


def given(options: argparse.Namespace) -> set[str]:
    """Return the dotted keys that the command line sets."""
    from proxytrain.config.overrides import given as keys

    return set(keys(options.overrides))


def named(options: argparse.Namespace) -> bool:
    """Return whether a sweep is named: by `sweep.name`, or by an experiment."""
    return bool(given(options) & {"sweep.name", "experiment"})


def first_word(options: argparse.Namespace) -> str:
    """Take the first word that is no override (`sync`, RUN_ID) out of the overrides; empty where there is none."""
    word = next((o for o in options.overrides if "=" not in o), "")
    if word:
        options.overrides.remove(word)
    return word


def where(asked: Any) -> str:
    return "" if str(asked.store.root) == "runs" else f" store={asked.store.root}"


def place(options: argparse.Namespace, config: Any) -> dict[str, float]:
    """Return the run that the command line names: two of params, tokens and flops, or one; `null` names none."""
    keys = given(options)
    return {c: value for c in ("params", "tokens", "flops") if c in keys and (value := getattr(config, c)) is not None}


def console(options: argparse.Namespace) -> Any:
    from proxytrain.monitor.console import Console

    return Console(options.quiet)


def answer(asked: Any, console: Any) -> tuple[list[str], dict[str, Any]]:
    """Fit, predict the target, and hold it against the truth where that is known: for people, and as plain values."""
    from proxytrain.monitor.text import answer_lines
    from proxytrain.sweep import main as job
    from proxytrain.sweep import results as outcomes

    with console.at_work(FITTING) as tell:
        fitted = job.fit(asked, tell)
    with console.at_work(FITTING_CURVES) as tell:
        prediction = job.predict(asked, fitted, tell)
    beware, truths = outcomes.caveats(asked), outcomes.truths(asked)
    target = {k: getattr(asked.target_record, k) for k in ("id", "params", "tokens", "flops", "schedule")}
    target["lr"] = asked.target_record.config.lr
    measured = ("id", "status", "final_loss", "val_se", "diverged_at")
    content = {
        "target": target,
        "prediction": vars(prediction),
        "warnings": [*fitted.warnings, *beware],
        "truth": [{k: v for k in measured if (v := getattr(t, k)) is not None} for t in truths],
        "fit": str(asked.folder / "fit.json"),
    }
    return answer_lines(asked, fitted, prediction, beware, truths), content


def put(options: argparse.Namespace, lines: list[str], content: dict[str, Any]) -> None:
    """An answer on standard output: one JSON object where that is asked for, else lines for people."""
    options.answered = True
    print(json.dumps(_plain(content), indent=1, allow_nan=False) if options.json else "\n".join(lines))


def _plain(value: Any) -> Any:
    """As JSON has it: numbers that are none are null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Struct):
        return _plain(to_builtins(value))
    if hasattr(value, "tolist"):  # of numpy
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def mirrored(asked: Any, name: str, console: Any) -> Any:
    """A context in which the mirror that was asked for (track=wandb) is at work on a sweep."""
    from proxytrain.track.beside import Beside

    return Beside(asked.config.track, asked.store, name, console)
