"""Randomness without a generator: a keyed hash and a keyed permutation of [0, n).

Both are functions of their arguments alone, in plain 64-bit integer arithmetic, so they give the same numbers on every
machine, in every version of numpy, from any position on, without anything to store.
"""

from __future__ import annotations

import math

import numpy as np

from proxytrain.arrays import Array

MASK = (1 << 64) - 1
ROUNDS = 4


def mix(x: Array) -> Array:
    """The finaliser of splitmix64: a bijection of 64-bit integers whose output looks random. uint64 in, uint64 out."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def key(*parts: int) -> Array:
    """One 64-bit key, shape (1,), from a few integers."""
    state = np.zeros(1, dtype=np.uint64)
    for part in parts:
        state = mix(state + np.array([(part * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & MASK], dtype=np.uint64))
    return state


def permutation(positions: Array, n: int, *seed: int) -> Array:
    """The images of `positions`, integers in [0, n), under the permutation of [0, n) that `seed` names.

    A Feistel network on the grid a x b >= n with sides near the square root of n; the few images beyond n walk on
    along their cycle until they are back inside, which leaves a bijection of [0, n) (Black and Rogaway, 2002).

    Returns
    -------
    int64 array of the shape of `positions`
    """
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    keys = [key(*seed, r) for r in range(2 * ROUNDS)]
    x = np.asarray(positions).astype(np.uint64)
    outside = np.ones(x.shape, dtype=bool)
    while outside.any():
        left, right = np.divmod(x[outside], np.uint64(b))
        for r in range(0, 2 * ROUNDS, 2):
            left = (left + mix(right + keys[r]) % np.uint64(a)) % np.uint64(a)
            right = (right + mix(left + keys[r + 1]) % np.uint64(b)) % np.uint64(b)
        x[outside] = left * np.uint64(b) + right
        outside = x >= np.uint64(n)
    return x.astype(np.int64)
