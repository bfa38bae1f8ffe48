"""Damage to files and to trees of JSON, by a seed, and what a reader says of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from proxytrain.errors import Refusal, RequestError

STRANGE = [None, True, -1, 0, 1e308, "", "x", "../../x", [], {}, [None], {"a": 1}, float("nan"), 2**70, "9" * 400]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file with one kind of damage: cut, bits flipped, a piece gone, doubled or strange; JSON also by its tree."""
    kind = rng.choice(["cut", "flip", "lose", "double", "strange", "tree", "tree", "tree"])
    a = rng.randrange(len(content))
    b = min(len(content), a + rng.choice([1, 4, 40, 400]))
    if kind == "tree":
        try:
            return json.dumps(changed(json.loads(content), rng)).encode()
        except ValueError:
            kind = "flip"
    return {
        "cut": content[:a],
        "flip": content[:a] + bytes(c ^ rng.randrange(1, 256) for c in content[a:b]) + content[b:],
        "lose": content[:a] + content[b:],
        "double": content[:b] + content[a:],
        "strange": content[:a]
        + rng.choice([b"nan", b"-1", b"\x00", b"\xff", b"1e999", b'"', b",,", b"\n\n"])
        + content[b:],
    }[kind]


def changed(tree: Any, rng: random.Random) -> Any:
    """A tree with one value replaced or one entry gone."""
    if isinstance(tree, dict | list) and tree and rng.random() < 0.93:
        key = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
        if rng.random() < 0.1:
            return (
                {k: v for k, v in tree.items() if k != key} if isinstance(tree, dict) else tree[:key] + tree[key + 1 :]
            )
        copy: Any = dict(tree) if isinstance(tree, dict) else list(tree)
        copy[key] = changed(tree[key], rng)
        return copy
    return rng.choice(STRANGE)


def complaint(read: Callable[[], object], what: str) -> str:
    """What the reader says is wrong; anything but the errors that end in one line fails."""
    try:
        read()
    except (RequestError, Refusal) as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    except Exception as error:
        raise AssertionError(what) from error
    return ""
