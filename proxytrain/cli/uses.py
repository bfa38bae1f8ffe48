"""Which keys each verb reads. An override of any other key is refused: nothing that is typed is ignored.

A verb that names a sweep by its whole configuration (`BESIDE`) takes all keys that a sweep has, since the same words
must serve for plan, sweep, verify, report, fit and predict; there a few keys are listed that do nothing. Every other
verb, or mode of a verb, lists what it reads (`READS`).
"""

from __future__ import annotations

import argparse

from proxytrain.config.overrides import given, leaves, parsed
from proxytrain.config.shell import shown
from proxytrain.errors import RequestError

NAMED = ("sweep.name", "store")
RUN = ("params", "tokens", "flops")  # the run to predict, where the command line names it
ANSWER = ("fit.level", "fit.allow_extrapolation")
SOURCES = ("table", "wandb")
READS: dict[str, tuple[str, ...]] = {
    "status": NAMED,
    "cancel": NAMED,
    "retry": NAMED,
    "gc": ("store", "train.keep_weights"),
    "track": (*NAMED, "track"),
    "work": (
        *(*NAMED, "track", "train.checkpoint_seconds", "train.memory", "train.device"),
        *("launch.threads", "launch.stale_seconds", "launch.time_limit", "launch.requeue"),
    ),
    "report --compare": ("store", "tokens_per_param"),
    "fit table=": (*SOURCES, "file", *RUN, "fit"),
    "fit compare=": ("compare", "fit", "tokens_per_param"),
    "fit fit.law=optimum": (
        *SOURCES,
        "file",
        "fit.law",
        "fit.schedule",
        "fit.columns",
        "fit.where",
        "fit.rows",
        *ANSWER,
    ),
    "fit fit.law=critical_batch": (*SOURCES, "curves", "file", "fit.law", "fit.level", "fit.seed"),
    "fit curves=": ("curves", "file", "fit.law", "fit.columns", *ANSWER),
    "predict params=": (*NAMED, *RUN, *ANSWER),
    "predict file=": ("file", *RUN, *ANSWER),
    "predict file= of curves": (
        *("file", "params", "tokens", "batch_tokens", "lr", "warmup", "schedule"),
        *ANSWER,
    ),
    "predict file= of an optimum": ("file", "params", "tokens", "batch_tokens", *ANSWER),
}
FOREIGN = ("table", "compare", "curves", "wandb", "file", "params", "coordcheck", "verify")  # of no sweep
BESIDE: dict[str, tuple[str, ...]] = {  # which of them a verb reads, beside the keys of a sweep
    "sweep": ("verify",),
    "plan": (),
    "probe": (),
    "train": (),
    "branch": (),
    "submit": (),
    "submit launch.finish=true": ("verify",),
    "verify": ("verify",),
    "report": ("verify",),
    "fit": ("file",),
    "fit curves=sweep": ("curves", "file", "verify"),
    "fit fit.law=optimum sweep.name=": ("file",),
    "fit fit.law=critical_batch sweep.name=": ("curves", "file"),
    "predict": ("verify",),
    "coordcheck": ("file", "coordcheck"),
}
ONLY_NOT = {
    "train": ("sweep.name", "sweep.target"),
    "branch": ("sweep.name", "sweep.target"),
    "coordcheck": ("lr", "sweep.grids", "sweep.target", "schedule", "init_seed", "data_seed"),
}
INSTEAD = {  # what to do, by verb and key (the longest that fits), else by key
    "work train": "The plan is frozen. `proxytrain plan` and `sweep` take this key.",
    "work launch.workers": "It is one worker. Start it once per worker that is wanted.",
    "work launch": "It is one worker. `proxytrain sweep` and `submit` take this key.",
    "work": "The plan states what is trained. `proxytrain plan` makes another.",
    "gc": "It frees the whole store. Type store=FOLDER for another store.",
    "predict file fit": "The fit keeps its own options. `proxytrain fit` makes another.",
    "predict params fit": "The fit keeps its own options. `proxytrain fit` makes another.",
    "train sweep.name": "A run is named by its id.",
    "branch sweep.name": "A run is named by its id.",
    "coordcheck lr": "It trains at coordcheck.lr.",
    "coordcheck init_seed": "coordcheck.seeds is their number.",
    "table": "`proxytrain fit` reads it.",
    "wandb": "`proxytrain fit` reads it.",
    "compare": "`proxytrain fit` reads it.",
    "curves": "`proxytrain fit` reads it.",
    "file": "`proxytrain fit` writes it, `predict` reads it.",
    "params": "`proxytrain predict` reads it. A sweep predicts sweep.target.",
    "coordcheck": "`proxytrain coordcheck` reads it.",
    "verify": "`proxytrain verify` reads it.",
}


def check(mode: str, options: argparse.Namespace, more: tuple[str, ...] = ()) -> None:
    """Refuse the first override that a verb, in this mode, does not use.

    Parameters
    ----------
    mode : a key of `READS` or `BESIDE`
    options : the command line; its overrides compose
    more : keys that are read too

    Raises
    ------
    RequestError
        One line that names the override, and what uses it.
    """
    for key, word in given(options.overrides).items():
        if _value(word, key) is None:  # null says that nothing is given
            continue
        if not (_used(mode, key, options) or _within(key, more)):
            raise RequestError(f"{shown(word)}: `proxytrain {mode}` does not use it. {_instead(mode, key)}")


def _used(mode: str, key: str, options: argparse.Namespace) -> bool:
    if mode in BESIDE:
        return _within(key, BESIDE[mode]) or not (_within(key, FOREIGN) or _within(key, ONLY_NOT.get(mode, ())))
    reads = READS[mode]
    if key == "experiment":
        return any(_within(k, reads) for k in _set_by(options) if k not in RUN)
    return _within(key, reads) or any(k.startswith(f"{key}.") for k in reads)


def _within(key: str, keys: tuple[str, ...]) -> bool:
    """Return whether a key is one of these, or of a group among them."""
    return any(key == k or key.startswith(f"{k}.") for k in keys)


def _set_by(options: argparse.Namespace) -> list[str]:
    """Return the keys in which the chosen experiment differs from the defaults."""
    from proxytrain.config.compose import compose

    chosen = [o for o in options.overrides if o.lstrip("+").startswith("experiment=")]
    plain = dict(leaves(compose([])))
    return [k for k, v in leaves(compose(chosen, options.config_dir)) if k not in plain or plain[k] != v]


def _value(word: str, key: str) -> object:
    reading = parsed(word)
    return dict(leaves({reading.key_or_group: reading.value()})).get(key)


def _instead(mode: str, key: str) -> str:
    """Return what to do about a key, by the most particular line there is."""
    verb = mode.partition("=")[0]
    for start in (f"{verb} ", f"{mode.partition(' ')[0]} ", ""):
        parts = key.split(".")
        for length in range(len(parts), 0, -1):
            if line := INSTEAD.get(start + ".".join(parts[:length])):
                return line
    if line := INSTEAD.get(verb):
        return line
    names = ("experiment", *READS[mode]) if "sweep.name" in READS.get(mode, ()) else READS.get(mode, ())
    return f"It uses {', '.join(names)}." if names else "Leave it out."
