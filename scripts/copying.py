"""What finished runs have learnt to take from their context: validation loss by position, where a string repeats, and
where a bracket or quote is closed.

    python scripts/copying.py [--store runs] [--tokens 204800] SWEEP...

For every run of these sweeps whose weights were kept: loss in each quarter of the context; on tokens before which the
longest string seen earlier (of --match tokens or more) went on as it now does (`copied`), went on otherwise (`else`),
and where there is none (`new`); on tokens that begin with a closing bracket or a quote right after text (`closing`);
and the largest share of its attention that a head gives to the token after that string, which is what induction heads
do (2209.11895). Of ready tokens, whose text is unknown, `closing` is nan.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from proxytrain import Store, load_model
from proxytrain.corpus.corpus import Corpus, load
from proxytrain.errors import RequestError
from proxytrain.model import gpt as model
from proxytrain.plan import freeze
from proxytrain.train.evaluate import sequences

CHUNK = 64
CLOSERS = tuple(")]}\"'`")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP")
    parser.add_argument("--store", default="runs")
    parser.add_argument("--tokens", type=int, default=204_800, help="of validation text")
    parser.add_argument("--match", type=int, default=3)
    options = parser.parse_args()
    store = Store(options.store)
    print("width   tokens seed     loss   by quarter of the context  copied   else    new  closing  induction")
    plans = [freeze.load(store.sweep(sweep) / "plan.json") for sweep in options.sweeps]
    results = [store.result(run) for run in dict.fromkeys(run for plan in plans for run in plan.runs)]
    for result in sorted(filter(None, results), key=lambda r: (r.recipe.model.width, r.tokens)):
        recipe = result.recipe
        try:
            gpt = load_model(result.id, store)
        except RequestError as error:  # no weights
            print(error, file=sys.stderr)
            continue
        corpus = load(Path(options.store) / "corpora", recipe.corpus)
        ids, targets = sequences(corpus.val, recipe.model.context, options.tokens)
        length, after, right = repeats(ids, targets)
        long = length >= options.match
        losses, induction = look(gpt, ids, targets, after, long)
        quarters = [part.mean() for part in np.array_split(losses, 4, axis=1)]
        kinds = [losses[where].mean() for where in (long & right, long & ~right, ~long, closing(corpus, ids, targets))]
        print(
            f"{recipe.model.width:5d} {result.tokens:8d} {recipe.init_seed:4d}   {losses.mean():6.4f}   "
            + "  ".join(f"{x:.3f}" for x in quarters + kinds)
            + f"   {induction:.2f}",
            flush=True,
        )


def repeats(ids: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each position of ids (S, T): the length of the longest string that ends there and was there before, the
    position after its earlier place (-1: none), and whether what stood there is the target; the nearest such place.
    """
    length, after = np.zeros(ids.shape, int), np.full(ids.shape, -1)
    for lag in range(1, ids.shape[1]):
        same = ids[:, lag:] == ids[:, :-lag]
        run = np.zeros(same.shape, int)
        for t in range(same.shape[1]):
            run[:, t] = (run[:, t - 1] + 1 if t else 1) * same[:, t]
        longer = run > length[:, lag:]
        length[:, lag:][longer] = run[longer]
        after[:, lag:][longer] = np.broadcast_to(np.arange(1, same.shape[1] + 1), same.shape)[longer]
    return length, after, (np.take_along_axis(ids, after, axis=1) == targets) & (after >= 0)


def closing(corpus: Corpus, ids: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Of each position of ids (S, T): whether its target begins with a closing bracket or a quote, right after text."""
    if corpus.manifest.tokenizer == "ready":
        return np.zeros(ids.shape, bool)
    bpe = corpus.folder / "tokenizer.json"
    decode = Tokenizer.from_file(str(bpe)).decode if bpe.exists() else lambda token: chr(token[0])
    texts = [decode([i]) for i in range(corpus.manifest.vocab_size)]
    closes = np.isin(targets, [i for i, text in enumerate(texts) if text.startswith(CLOSERS)])
    return closes & ~np.isin(ids, [i for i, text in enumerate(texts) if text[-1:].isspace()])


@torch.no_grad()
def look(
    gpt: torch.nn.Module, ids: np.ndarray, targets: np.ndarray, after: np.ndarray, long: np.ndarray
) -> tuple[np.ndarray, float]:
    """Losses (S, T), and the largest mean attention of a head, where `long`, to the positions `after`."""
    losses, shares, plain = [], [], (model.causal_attention, model.native.serves)

    def watched(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = torch.einsum("nthd,nshd->nhts", q, k) / q.shape[-1] ** 0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        there = place.clamp(min=0)[:, None, :, None].expand(-1, q.shape[2], -1, 1)
        given = scores.masked_fill(later, -torch.inf).softmax(-1).gather(-1, there)
        shares[-1].append((given[..., 0] * where[:, None]).sum((0, 2)))
        return plain[0](q, k, v)

    model.causal_attention, model.native.serves = watched, lambda x: False  # attention in torch, to be looked at
    try:
        for i in range(0, len(ids), CHUNK):
            x, y, place, where = (torch.from_numpy(a[i : i + CHUNK]) for a in (ids, targets, after, long))
            shares.append([])
            out = gpt(x)
            losses.append(F.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).numpy())
    finally:
        model.causal_attention, model.native.serves = plain
    heads = torch.stack([torch.stack(part) for part in shares]).sum(0) / max(1, long.sum())
    return np.concatenate(losses), heads.max().item()


if __name__ == "__main__":
    main()
