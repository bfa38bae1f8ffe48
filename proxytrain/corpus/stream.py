"""The stream: the training text as fixed-length sequences in an order that only `data_seed` decides.

Token position p of the stream, a multiple of the context T, is where the sequence permutation[p // T] begins; when all
have been read an epoch is over and another permutation follows. Runs of any batch size read the same text in the same
order, and any position can be read without reading those before it.
"""

from __future__ import annotations

import numpy as np

from proxytrain.arrays import Array
from proxytrain.corpus.keyed import permutation
from proxytrain.corpus.tokens import Shards
from proxytrain.errors import RequestError

LOOKAHEAD = 4096  # sequence numbers that are computed at a time, so that a read of one batch costs a slice


class Stream:
    """The sequences of a corpus in the order of one `data_seed`.

    Parameters
    ----------
    tokens : (N,) uint16 or uint32, or Shards
    context : T, the length of a sequence in tokens
    data_seed : names the order

    Raises
    ------
    RequestError : the corpus is shorter than one sequence and its last target

    Examples
    --------
    >>> stream = Stream(np.arange(101, dtype=np.uint16), context=10, data_seed=0)
    >>> inputs, targets = stream.read(0, 20)
    >>> inputs.shape, bool((targets == inputs + 1).all()), stream.epochs(150)
    ((2, 10), True, 1.5)
    """

    def __init__(self, tokens: Array | Shards, context: int, data_seed: int):
        self.tokens, self.context, self.data_seed = tokens, context, data_seed
        self.sequences = (len(tokens) - 1) // context
        if self.sequences < 1:
            raise RequestError(
                f"the corpus has {len(tokens):,} tokens: fewer than one sequence of context={context} + 1"
            )
        self._first = 0
        self._ids: Array = np.empty(0, dtype=np.int64)

    def read(self, start: int, tokens: int) -> tuple[Array, Array]:
        """Inputs and targets of the stream's tokens `[start, start + tokens)`, both multiples of T.

        Returns
        -------
        inputs, targets : (tokens // T, T) int64; a target is the token after its input
        """
        windows = self.windows(start, tokens)
        return windows[:, :-1].astype(np.int64), windows[:, 1:].astype(np.int64)

    def windows(self, start: int, tokens: int) -> Array:
        """The same as sequences with the token after them, (tokens // T, T + 1), in the corpus's own integers."""
        T = self.context
        if start % T or tokens % T:
            raise ValueError(f"start={start} and tokens={tokens} must be multiples of the context {T}")
        ids = self._sequence_ids(start // T, tokens // T)
        if isinstance(self.tokens, Shards):
            return self.tokens.windows(ids * T, T + 1)
        return self.tokens[(ids * T)[:, None] + np.arange(T + 1)]

    def epochs(self, tokens: int) -> float:
        """How many times a run of so many tokens reads the text."""
        return tokens / (self.sequences * self.context)

    def _sequence_ids(self, first: int, count: int) -> Array:
        if not self._first <= first <= first + count <= self._first + len(self._ids):
            epoch, position = np.divmod(np.arange(first, first + max(count, LOOKAHEAD)), self.sequences)
            parts = [
                permutation(position[epoch == e], self.sequences, self.data_seed, int(e)) for e in np.unique(epoch)
            ]
            self._first, self._ids = first, np.concatenate(parts)
        return self._ids[first - self._first : first - self._first + count]
