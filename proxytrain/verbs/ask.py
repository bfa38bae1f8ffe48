"""What verbs ask of the command line: the configuration, the sweep, the run that was named."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def config(options: argparse.Namespace) -> Any:
    from proxytrain.compose import compose
    from proxytrain.config import Config, build

    return build(Config, compose(options.overrides, options.config_dir))


def request(options: argparse.Namespace) -> tuple[Any, Any]:
    from proxytrain import sweep as job
    from proxytrain.track.console import Console

    console = Console(options.quiet)
    return job.request(options.overrides, options.config_dir, console), console


def named(options: argparse.Namespace) -> bool:
    """Whether a sweep was asked for by name."""
    return any(o.startswith(("sweep.name=", "experiment=")) for o in options.overrides)


def where(asked: Any) -> str:
    return "" if str(asked.store.root) == "runs" else f" store={asked.store.root}"


def place(options: argparse.Namespace, config: Any) -> dict[str, float]:
    """The run that was named on the command line: two of params, tokens and flops, or one."""
    given = {o.partition("=")[0].lstrip("+") for o in options.overrides}
    return {c: getattr(config, c) for c in ("params", "tokens", "flops") if c in given}


@contextmanager
def at_work(text: str, options: argparse.Namespace) -> Iterator[None]:
    """A line with a moving sign on a terminal, gone when the work is done."""
    from rich.console import Console

    console = Console(stderr=True)
    if options.quiet or not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


def answer(asked: Any) -> list[str]:
    """Fit, predict the target, and hold it against the truth where that is known."""
    from proxytrain import sweep as job
    from proxytrain.track.text import answer_lines

    fitted = job.fit(asked)
    return answer_lines(asked, fitted, job.predict(asked, fitted), job.caveats(asked), job.truths(asked))
