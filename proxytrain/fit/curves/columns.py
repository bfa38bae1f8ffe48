"""Which column of a file of curves is what: as `fit.columns` says, by our names, or by names that leave no doubt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from proxytrain.errors import RequestError, did_you_mean

OF_A_RUN = ("step", "tokens", "lr", "loss", "val_loss")  # columns of a run's own file
OF_THE_INDEX = ("file", "params", "tokens_per_step")
VALIDATION_WORDS = re.compile(r"(?<![a-z])(val|valid|validation|eval|evaluation|test|dev|heldout|held_out)(?![a-z])")
OTHER_UNIT = {
    "ppl": "a perplexity; give its natural logarithm",
    "perplexity": "a perplexity; give its natural logarithm",
    "acc": "an accuracy; give the loss in nats per token",
    "accuracy": "an accuracy; give the loss in nats per token",
    "bpb": "in bits per byte; give nats per token",
    "bpc": "in bits per character; give nats per token",
    "bits": "in bits; multiply by 0.6931 to give nats per token",
}
INDEX_NAMES = {
    "file": ("file", "run", "name", "run_name", "run_id", "filename", "path"),
    "params": ("params", "n_params", "num_params", "parameters", "n_parameters", "num_parameters", "model_params"),
    "tokens_per_step": ("tokens_per_step", "batch_tokens", "tokens_per_batch", "tokens_per_update"),
}


def check_columns(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Return the mapping of our names to the files' names.

    Raises
    ------
    RequestError
        A name of ours is not one that curves have, or two that exclude each other are given.
    """
    mapped = {str(k): str(v) for k, v in (columns or {}).items()}
    known = (*OF_A_RUN, *OF_THE_INDEX)
    for ours in mapped:
        if ours not in known:
            raise RequestError(
                f"fit.columns={ours}: curves have no such column{did_you_mean(ours, known)}. Use {', '.join(known)}."
            )
    if {"step", "tokens"} <= set(mapped):
        raise RequestError("fit.columns: both step and tokens are given. Give the one that counts the rows.")
    return mapped


def columns_of_run(names: Iterable[str], mapped: Mapping[str, str], source: object) -> dict[str, str]:
    """Return our names (of `OF_A_RUN`) with the file's names.

    Names of our own come first, then those that only one column can be meant by. `step` is left out where `tokens`
    counts the rows.
    """
    names = list(names)
    found = _mapped(names, mapped, OF_A_RUN, source)
    # Our own names leave no doubt.
    for ours in OF_A_RUN:
        if ours not in found and ours in names:
            found[ours] = ours
    if "tokens" in found and "step" in found and "tokens" not in mapped:
        del found["tokens"]
    if "tokens" in mapped:
        found.pop("step", None)
    if "loss" not in found and "train_loss" in names:
        found["loss"] = "train_loss"
    doubtful: dict[str, list[str]] = {}
    own_loss = found.get("loss") in ("loss", "train_loss") and "loss" not in mapped
    for ours, fits in _LOOKS.items():
        if ours in found or (ours in ("step", "tokens") and {"step", "tokens"} & set(found)):
            continue
        if ours == "val_loss" and own_loss:  # what is predicted does not change unasked
            continue
        like = [n for n in names if n not in found.values() and fits(n)]
        if len(like) == 1:
            found[ours] = like[0]
        elif like:
            doubtful[ours] = like
    if "loss" not in found and "val_loss" in found and "loss" not in doubtful:
        found["loss"] = found.pop("val_loss")
    missing = [c for c in ("step", "lr", "loss") if c not in found and not (c == "step" and "tokens" in found)]
    if missing:
        likely = {c: doubtful.get(c, [f"NAME_OF_{c.upper()}"])[0] for c in missing}
        several = "".join(f" {c} may be {' or '.join(doubtful[c])}." for c in missing if c in doubtful)
        raise RequestError(
            f"{source}: no column {', '.join(missing)}; it has {', '.join(names)}.{several} "
            f"Name them, as {as_typed({**mapped, **likely})}."
        )
    twice = next((t for t in found.values() if f"{t}.1" in names), None)
    if twice is not None:
        raise RequestError(f"{source}: two columns are named {twice!r}. Rename or remove one.")
    _refuse_other_units(found, source)
    return found


def columns_of_index(names: Iterable[str], mapped: Mapping[str, str], source: object) -> dict[str, str]:
    """Return our names (of `OF_THE_INDEX`) with the names in index.csv; `params` may be missing."""
    names = list(names)
    found = _mapped(names, mapped, OF_THE_INDEX, source)
    for ours, known in INDEX_NAMES.items():
        like = [n for n in names if n in known] or [n for n in names if plain(n) in known]
        if ours not in found and like:
            found[ours] = like[0] if ours == "file" or like[0] == ours else _only(like, ours, source)
    if "params" not in found:
        like = [n for n in names if n.startswith("params")]
        if like:
            found["params"] = _only(like, "params", source)
    if "file" not in found:
        raise RequestError(
            f"{source}: no column {', '.join(INDEX_NAMES['file'][:3])}; it has {', '.join(names)}. "
            f"Name the column of the files, as {as_typed({'file': names[0]})}."
        )
    return found


def renamed(found: Mapping[str, str]) -> str:
    """Return which columns were read as which, for a note; empty where all have our names."""
    order = [c for c in (*OF_A_RUN, *OF_THE_INDEX) if c in found and found[c] not in (c, "train_loss")]
    return ", ".join(f"{found[c]!r} as {c}" for c in order)


def as_typed(columns: Mapping[str, str]) -> str:
    """Return the option as it is typed in a shell: braces and commas need the outer quotes.

    Examples
    --------
    >>> print(as_typed({"lr": "optim/lr", "loss": "train loss"}))
    'fit.columns={lr:optim/lr,loss:"train loss"}'
    """
    simple = re.compile(r"[A-Za-z_][\w./-]*")
    pairs = (f"{k}:{v}" if simple.fullmatch(v) else f'{k}:"{v}"' for k, v in columns.items())
    return "'fit.columns={" + ",".join(pairs) + "}'"


def plain(name: str) -> str:
    """Return a name in lower case with underscores, without the part before its last slash.

    Examples
    --------
    >>> plain("optim/Learning Rate")
    'learning_rate'
    """
    return re.sub(r"[^a-z0-9]+", "_", name.rsplit("/", 1)[-1].lower()).strip("_")


def _is_step(name: str) -> bool:
    return bool(re.fullmatch("(global_)?steps?|iters?|iterations?|updates?", plain(name)))


def _is_tokens(name: str) -> bool:
    return plain(name) in ("tokens", "num_tokens", "n_tokens", "tokens_seen", "total_tokens", "consumed_tokens")


def _is_rate(name: str) -> bool:
    return bool(re.fullmatch(r"(lr|learning_rate|learningrate|lr_\w+)(_?(group|pg|param_group)?_?\d+)?", plain(name)))


def _is_loss(name: str) -> bool:
    last = plain(name)
    named = re.fullmatch(r"(train|training|lm|ce|cross_?entropy|nll)?_?(loss|nll|cross_?entropy)", last)
    return bool(named or re.fullmatch(r"cross_?entropy_?loss", last)) and not VALIDATION_WORDS.search(name.lower())


def _is_validation(name: str) -> bool:
    return "loss" in plain(name) and bool(VALIDATION_WORDS.search(re.sub(r"[^a-z0-9]+", " ", name.lower())))


_LOOKS: dict[str, Callable[[str], bool]] = {
    "step": _is_step,
    "tokens": _is_tokens,
    "lr": _is_rate,
    "loss": _is_loss,
    "val_loss": _is_validation,
}


def _mapped(names: list[str], mapped: Mapping[str, str], ours: Iterable[str], source: object) -> dict[str, str]:
    found = {c: mapped[c] for c in ours if c in mapped}
    for c, theirs in found.items():
        if theirs not in names:
            raise RequestError(
                f"fit.columns={c}:{theirs}: {source} has no such column{did_you_mean(theirs, names)}. "
                f"It has {', '.join(names)}."
            )
    return found


def _only(like: list[str], ours: str, source: object) -> str:
    if len(like) > 1:
        raise RequestError(
            f"{source}: {' and '.join(like)} may both be {ours}. Name one, as {as_typed({ours: like[0]})}."
        )
    return like[0]


def _refuse_other_units(found: Mapping[str, str], source: object) -> None:
    for ours in ("loss", "val_loss"):
        words = plain(found.get(ours, "")).split("_")
        unit = next((u for w, u in OTHER_UNIT.items() if w in words), None)
        if unit:
            raise RequestError(f"{source}: the column {found[ours]!r} (for {ours}) seems to be {unit}.")
