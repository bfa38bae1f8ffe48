"""The beginning of a prepared corpus as a person can read it, so that text that was read wrongly is seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proxytrain.arrays import Array
from proxytrain.corpus.corpus import Corpus
from proxytrain.corpus.ends import END_OF_TEXT

CHARACTERS = 200
IDS = 12  # of ready tokens, which have no text


@dataclass(frozen=True)
class Preview:
    """What is shown of a corpus.

    Attributes
    ----------
    documents : training and validation documents; None for ready tokens
    begins : the first characters of the training text, escaped; of ready tokens the first ids
    highest_id : of the training tokens
    """

    documents: tuple[int, int] | None
    begins: str
    highest_id: int

    def lines(self, corpus: Corpus) -> list[str]:
        """Return it for people: how much there is, then how it begins."""
        m = corpus.manifest
        ids = f"highest token id {self.highest_id:,} of a vocabulary of {m.vocab_size:,}"
        if self.documents is None:
            return [f"tokens: {m.train_tokens:,} for training, {m.val_tokens:,} for validation; {ids}", self.begins]
        train, val = self.documents
        more = [] if m.unknown_share is None else [f"{100 * m.unknown_share:.3g}% of the tokens are unknown"]
        if m.surviving_share is not None:
            more.append(f"{100 * m.surviving_share:.4g}% of a sample's bytes survive the tokenizer")
        counted = f"text: {train:,} training and {val:,} validation documents"
        return [f"{'; '.join([counted, *more])}; it begins:", f'"{self.begins}"']


def preview(corpus: Corpus) -> Preview:
    """Return the first characters of the prepared training text, decoded from its tokens."""
    m = corpus.manifest
    highest = int(np.flatnonzero(corpus.unigram).max(initial=0))
    if m.tokenizer == "ready":
        return Preview(None, "first ids: " + " ".join(map(str, corpus.train[:IDS])), highest)
    ids = np.asarray(corpus.train[: 4 * CHARACTERS])  # a character has at most four bytes, a token at least one
    text = _bytes(ids) if m.tokenizer == "bytes" else _decoded(corpus, ids)
    return Preview((m.train_documents, m.val_documents), printable(text[:CHARACTERS]), highest)


def printable(text: str) -> str:
    """Return text with line breaks, control and direction characters as escapes.

    Examples
    --------
    >>> print(printable("a\\tb\\x1b[31m"))
    a\\tb\\x1b[31m
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _bytes(ids: Array) -> str:
    return ids.astype(np.uint8).tobytes().decode("utf-8", errors="replace").replace("\0", END_OF_TEXT)


def _decoded(corpus: Corpus, ids: Array) -> str:
    from tokenizers import Tokenizer

    from proxytrain.corpus.tokenizer import decoder_of

    path = corpus.folder / "tokenizer.json"
    try:
        json = path.read_text(encoding="utf-8")
        ready = Tokenizer.from_str(json)
        decoder = decoder_of(json, ready)
        if decoder is None:
            return ready.decode(ids.tolist(), skip_special_tokens=False)
        return decoder.decode([ready.id_to_token(i) or "" for i in ids.tolist()])
    except Exception as error:  # the library raises a bare Exception; a preview must not stop a plan
        return f"({path} cannot be read: {error})"
