"""Numbers that cannot be in the unit that their column is read in: the likely unit is named.

Each check compares the median run with what is physically possible, by orders of magnitude, so that unusual but real
tables pass.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from proxytrain.arrays import Array
from proxytrain.errors import RequestError
from proxytrain.fit.tables.runs import words_of

# (lowest, highest, what is meant): a value outside is a unit that cannot be, e.g. tokens counted in billions.
RANGES = {
    "params": (1e3, 1e15, "parameters, at least 1000"),
    "tokens": (1e3, 1e17, "tokens, at least 1000"),
    "flops": (1e6, 1e35, "FLOPs, at least 1e6"),
    "loss": (0.0, 20.0, "nats per token, above 0 and below 20"),
    "loss_se": (-1.0, 1.0, "a standard error of the loss, 0 or more and below 1"),
    "lr": (0.0, 1e4, "above 0"),
    "batch_tokens": (0.0, 1e12, "tokens, above 0"),
    "weight": (0.0, 1e12, "above 0"),
    "unique_tokens": (1e3, 1e17, "tokens, at least 1000"),
}
LEAST_RATIO = 0.01  # tokens per parameter
HIGH_RATIO = 1e5  # beyond any published run; the most over-trained have about 6e4
MOST_RATIO = 1e6
MOST_UPDATES = 1e7  # tokens / batch_tokens; long published runs have about 1e6
FLOPS_APART = 30.0  # factor between FLOPs and 6 N D; embeddings and attention change it by less than 10
UNIFORM = 12.0  # nats per token of guessing among 160,000 tokens: losses of trained models are lower
FLOPS_UNITS = {8.64e19: "petaFLOP/s-days", 1e18: "exaFLOPs", 1e15: "petaFLOPs", 1e12: "teraFLOPs", 1e9: "gigaFLOPs"}
UPDATE_NAMES = ("steps", "step", "updates", "iterations", "iters", "train_steps", "num_steps")


def check_scale(source: str, numbers: Mapping[str, Array], raw: Mapping[str, Array], derived: str | None) -> list[str]:
    """Refuse sizes, lengths and batches whose unit cannot be the expected one; return what is only unlikely.

    Parameters
    ----------
    numbers : columns that are read, (n,) each, with `params` and `tokens`, given or derived
    raw : columns that are not read, as texts
    derived : the one of params and tokens that follows from flops
    """
    n, d = numbers["params"], numbers["tokens"]
    ratio = d / n
    low, high = float(ratio.min()), float(np.median(ratio))
    if low < LEAST_RATIO or high > MOST_RATIO:
        short = low < LEAST_RATIO
        i = int(ratio.argmin() if short else ratio.argmax())
        likely = _likely(high, "tokens") if short else _likely(1 / high, "params")
        if derived:
            likely = f"{derived} follow from flops / 6: are flops counted in another unit?"
        raise RequestError(
            f"{source}: a run has {ratio[i]:.2g} tokens per parameter ({d[i]:.3g} tokens, {n[i]:.3g} params). {likely}"
        )
    if "batch_tokens" in numbers:
        _check_batch(source, d, numbers["batch_tokens"], raw)
    said = []
    if ratio.max() > HIGH_RATIO:
        said = [f"tokens per parameter reach {ratio.max():.2g}: do params count thousands, or tokens bytes?"]
    return said + (_check_flops(numbers["flops"], 6.0 * n * d) if "flops" in numbers and not derived else [])


def check_loss(source: str, column: str, loss: Array, params: Array, tokens: Array) -> list[str]:
    """Refuse what is no loss in nats: accuracies, perplexities, percents; return what is only unlikely.

    Parameters
    ----------
    column : the loss's name in the table
    loss, params, tokens : (n,) as read, before the range of losses is checked
    """
    finite = np.isfinite(loss)
    if finite.sum() < 3:
        return []
    loss, size = loss[finite], np.log(params[finite] * tokens[finite])
    words = words_of(column)
    rises = _rank_correlation(size, loss) > 0.5
    if words & {"acc", "accuracy"} or (rises and (loss > 0).all() and loss.max() <= 1.0):
        raise RequestError(
            f"{source}: {column} rises with size and length, from {loss.min():.3g} to {loss.max():.3g}: an accuracy. "
            "Laws are fitted to losses; name the loss's column with fit.columns={loss: ...}."
            if rises
            else f"{source}: {column} is an accuracy by its name. Name the loss with fit.columns={{loss: ...}}."
        )
    if np.median(loss) >= RANGES["loss"][1] and rises:
        raise RequestError(
            f"{source}: {column} rises with size and length, from {loss.min():.3g} to {loss.max():.3g}: a score in "
            "percent. Laws are fitted to losses; name the loss's column with fit.columns={loss: ...}."
        )
    if words & {"ppl", "perplexity"} or np.median(loss) > UNIFORM:
        raise RequestError(
            f"{source}: {column} is {np.median(loss):.3g} in the median run: a perplexity"
            f"{', or a loss in percent' if np.median(loss) > 100 else ''}. Give the loss in nats per token, the "
            "logarithm of the perplexity."
        )
    if np.median(loss) > 0.5 * UNIFORM:
        return [
            f"{column} is {np.median(loss):.3g} in the median run, high for a loss in nats per token: "
            "for perplexities, take their logarithm"
        ]
    if words & {"bpb", "bits"}:
        return [f"{column} is in bits by its name: predictions have the same unit"]
    return []


def _check_flops(flops: Array, counted: Array) -> list[str]:
    factor = float(np.median(counted / flops))
    if 1 / FLOPS_APART < factor < FLOPS_APART:
        return []
    unit = next((u for f, u in FLOPS_UNITS.items() if f / 10 < factor < 10 * f), "")
    likely = f": FLOPs in {unit}?" if unit else ""
    return [f"flops are {1 / factor:.2g} times 6 params tokens in the median run and are not used{likely}"]


def _check_batch(source: str, tokens: Array, batch: Array, raw: Mapping[str, Array]) -> None:
    """Tokens are not fewer than a batch has, and not more than any run has batches."""
    few = tokens < batch * (1 - 1e-9)
    if few.any():
        i = int(np.argmax(few))
        raise RequestError(
            f"{source}: a run of {tokens[i]:.4g} tokens is shorter than one update of batch_tokens={batch[i]:.4g}. "
            "Are these updates or sequences? Give tokens."
        )
    updates = tokens / batch
    for name in (c for c in raw if c.lower() in UPDATE_NAMES):
        try:
            steps = raw[name].astype(float)
        except ValueError:
            continue
        length = float(np.median(updates / np.maximum(steps, 1.0)))
        if length > 8 and np.allclose(updates / np.maximum(steps, 1.0), length, rtol=0.02):
            raise RequestError(
                f"{source}: tokens / ({name} × batch_tokens) is {length:.4g} in all rows: batch_tokens counts "
                f"sequences of {length:.4g} tokens. Multiply it by that."
            )
    if np.median(updates) > MOST_UPDATES:
        raise RequestError(
            f"{source}: the median run has {np.median(updates):.2g} updates of batch_tokens={np.median(batch):.4g}. "
            "Does it count sequences? Multiply it by the tokens of a sequence."
        )


def _likely(ratio: float, column: str) -> str:
    """Which unit brings `column` to between 1 and 1,000 tokens per parameter."""
    for factor, unit in ((1e3, "thousands"), (1e6, "millions"), (1e9, "billions")):
        if 0.3 <= ratio * factor <= 3000:
            return f"Does {column} count {unit}? Multiply it by {factor:.0e}."
    return "Check the units of params and tokens."


def _rank_correlation(x: Array, y: Array) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    ranks = [np.searchsorted(np.sort(v), v, "left") + np.searchsorted(np.sort(v), v, "right") for v in (x, y)]
    return float(np.corrcoef(np.stack(ranks))[0, 1])
