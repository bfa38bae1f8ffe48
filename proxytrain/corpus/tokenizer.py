"""Text to token ids: raw bytes, a byte-level BPE that is trained here, or a ready tokenizer.json.

Units come as bytes that end in a newline (part of the text) or in NUL, which stands for end of text.
"""

from __future__ import annotations

import itertools
import json as json_text
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from proxytrain.arrays import Array
from proxytrain.corpus.ends import END_OF_TEXT
from proxytrain.errors import RequestError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Ready

END_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<|eos|>", "<|im_end|>")
SAMPLE_BYTES = 16 << 20  # of training text, drawn uniformly, that a BPE is trained on

Blocks = Iterable[tuple[Array, Array]]  # of (text uint8, lengths of its units), see shuffle


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary and its encoder.

    Attributes
    ----------
    vocab_size : number of ids, the highest one plus 1
    json : the tokenizer.json; empty for bytes
    encode : (text, lengths) of units -> (ids, tokens of each unit)
    round_trip : a text decoded from its tokens
    unknown : the token of what is not in the vocabulary, and its id; None where there is none
    end : id of end-of-text; None where there is none
    """

    vocab_size: int
    json: str
    encode: Callable[[Array, Array], tuple[Array, Array]]
    round_trip: Callable[[str], str]
    unknown: tuple[str, int] | None = None
    end: int | None = None


def make_tokenizer(kind: str, vocab_size: int, training: Blocks, needs_end: bool) -> Tokenizer:
    """Return the tokenizer that `data.tokenizer` asks for.

    Parameters
    ----------
    kind : bytes, bpe, or the path of a tokenizer.json
    vocab_size : of the BPE that is trained
    training : training units in shuffled order, of which a BPE reads the first SAMPLE_BYTES
    needs_end : whether units end in end-of-text, which a ready tokenizer must then have

    Raises
    ------
    RequestError : a tokenizer.json that cannot be read or has no end-of-text
    """
    if kind == "bytes":
        return Tokenizer(256, "", lambda text, lengths: (text.astype(np.uint16), lengths), lambda text: text)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # said explicitly: a later fork then brings no warning
    ready = _train(vocab_size, training) if kind == "bpe" else _read(kind)
    json = ready.to_str() if kind == "bpe" else _text(kind)
    ready.no_truncation()
    ready.no_padding()
    ready.encode_special_tokens = True  # "<|endoftext|>" written in a text is text
    vocabulary = ready.get_vocab(with_added_tokens=True)
    end = _end_of(vocabulary)
    if end is None and needs_end:
        raise RequestError(
            f"data.tokenizer={kind}: no end-of-text token (any of {', '.join(END_NAMES)}), which data.unit=document "
            "needs between documents; data.unit=line does not"
        )

    def encode(text: Array, lengths: Array) -> tuple[Array, Array]:
        encoded = ready.encode_batch_fast(list(units(text)), add_special_tokens=False)
        tail = [end] if text[-1] == 0 else []
        counts = np.fromiter((len(e) + len(tail) for e in encoded), dtype=np.int64, count=len(encoded))
        ids = itertools.chain.from_iterable(e.ids + tail for e in encoded)
        return np.fromiter(ids, dtype=np.uint32, count=int(counts.sum())), counts

    decoding = decoder_of(json, ready)

    def round_trip(text: str) -> str:
        ids = ready.encode(text, add_special_tokens=False).ids
        return str(decoding.decode([ready.id_to_token(i) for i in ids]) if decoding else ready.decode(ids, False))

    return Tokenizer(max(vocabulary.values()) + 1, json, encode, round_trip, _unknown(json, vocabulary), end)


def end_markers(kind: str) -> list[str]:
    """Return the end-of-text token of a ready tokenizer, which ends documents where a text has it written out.

    Raises
    ------
    RequestError : a tokenizer.json that cannot be read
    """
    if kind in ("bytes", "bpe"):
        return []
    vocabulary = _read(kind).get_vocab(with_added_tokens=True)
    return [name for name in END_NAMES if name in vocabulary][:1]


def decoder_of(json: str, ready: Ready) -> Any:
    """Return a decoder for a tokenizer that was saved without its own; None where it has one."""
    from tokenizers import decoders

    if ready.decoder is not None:
        return None
    before = str(json_text.loads(json).get("pre_tokenizer"))
    kind = next((kind for kind in ("ByteLevel", "Metaspace") if kind in before), "Fuse")
    return getattr(decoders, kind)()


def _end_of(vocabulary: dict[str, int]) -> int | None:
    return next((vocabulary[name] for name in END_NAMES if name in vocabulary), None)


def _unknown(json: str, vocabulary: dict[str, int]) -> tuple[str, int] | None:
    """Return the token that stands for what the vocabulary lacks."""
    model = json_text.loads(json).get("model", {})
    names = {number: name for name, number in vocabulary.items()}
    token = model.get("unk_token") or names.get(model.get("unk_id"))
    return (token, vocabulary[token]) if token in vocabulary else None


def units(text: Array) -> Iterator[str]:
    """Yield the units of a block as strings, without NULs and with newlines."""
    terminator = "\0" if text[-1] == 0 else "\n"
    keep = "" if terminator == "\0" else "\n"
    for unit in text.tobytes().decode().split(terminator)[:-1]:
        yield unit + keep


def _train(vocab_size: int, training: Blocks) -> Ready:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    def sample() -> Iterator[str]:
        left = SAMPLE_BYTES
        for text, _ in training:
            for unit in units(text):
                yield unit
                left -= len(unit)
                if left <= 0:
                    return

    ready = Tokenizer(models.BPE())
    ready.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    ready.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    ready.train_from_iterator(
        sample(),
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return ready


def _text(path: str) -> str:
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            f"data.tokenizer={path}: not bytes, not bpe, and no readable tokenizer.json ({error})"
        ) from None


def _read(path: str) -> Ready:
    from tokenizers import Tokenizer

    text = _text(path)
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises a bare Exception
        raise RequestError(f"data.tokenizer={path}: not a tokenizer.json of the tokenizers library ({error})") from None
