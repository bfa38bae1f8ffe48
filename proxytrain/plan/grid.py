"""Grids to configurations. A grid mirrors the config's tree: a list at a leaf is an axis, a group is chosen by name."""

from __future__ import annotations

import itertools
import math
import typing
from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace

from proxytrain.config.schema import Config, check
from proxytrain.config.section import build
from proxytrain.errors import RequestError, did_you_mean

Tree = dict[str, Any]
GROUPS = ("model", "parametrization", "optimizer", "schedule")
LENGTH_KEYS = ("tokens", "tokens_per_param", "flops")
TYPES = typing.get_type_hints(Config, include_extras=True)  # of the configuration's keys
MOST_RUNS = 100_000  # of a grid: more take minutes and gigabytes to plan
PLAIN = (*LENGTH_KEYS, "lr", "warmup", "batch_tokens", "init_seed", "data_seed")


def expand(base: Tree, grids: list[Tree], group: Callable[[str, str], Tree]) -> list[Config]:
    """Every configuration of a union of grids, in order; repeats are left in.

    Parameters
    ----------
    base : the composed config tree
    grids : what is varied; an empty list means the base alone
    group : (group, option) -> the tree of `conf/GROUP/OPTION.yaml`

    Raises
    ------
    RequestError
        For a key that cannot be varied, an empty axis, a value that the schema refuses.
    """
    builder = _Builder(base, group)
    found: list[Config] = []
    for i, grid in enumerate(grids or [{}]):
        if not isinstance(grid, dict):
            raise RequestError(f"sweep.grids[{i}]={grid!r}: a grid is a mapping of config keys to values or lists")
        prefix = f"sweep.grids[{i}]."
        axes = _distinct(_axes(grid, prefix), prefix)
        count = math.prod(map(len, axes.values()))
        if count > MOST_RUNS:
            sizes = " x ".join(f"{len(choices)} {'.'.join(path)}" for path, choices in axes.items() if len(choices) > 1)
            raise RequestError(f"sweep.grids[{i}]: {sizes} are {count:,} runs; at most {MOST_RUNS:,} can be planned")
        for values in itertools.product(*axes.values()):
            found.append(builder.config(list(zip(axes, values))))
    return found


def point(base: Tree, changes: Tree, group: Callable[[str, str], Tree], key: str) -> Config:
    """The one configuration that differs from the base by `changes` (a target): no axes allowed."""
    axes = _distinct(_axes(changes, f"{key}."), f"{key}.")
    for path, choices in axes.items():
        if len(choices) != 1:
            raise RequestError(f"{key}.{'.'.join(path)}={choices}: {key} is one run; give one value")
    return _Builder(base, group).config([(path, choices[0]) for path, choices in axes.items()])


class _Builder:
    """Typed configs from settings; parts that repeat are checked and built once."""

    def __init__(self, base: Tree, group: Callable[[str, str], Tree]):
        self.base, self.group = base, group
        self.config_of_base: Config = build(Config, {**base, "sweep": {**base["sweep"], "grids": [], "target": None}})
        self.parts: dict[str, Any] = {}

    def config(self, settings: list[tuple[tuple[str, ...], Any]]) -> Config:
        trees: Tree = {}
        for path, value in settings:
            if path[0] in GROUPS and len(path) == 1:
                trees[path[0]] = self.option(path[0], value)
        for path, value in settings:
            if path[0] in GROUPS and len(path) == 2:
                trees[path[0]] = {**(trees.get(path[0]) or self.base[path[0]]), path[1]: value}
            elif path[0] in PLAIN:
                trees[path[0]] = value
        if any(trees.get(k) is not None for k in LENGTH_KEYS):
            trees = {**dict.fromkeys(LENGTH_KEYS), **trees}
        fields = {key: self.part(key, tree) for key, tree in trees.items()}
        config = replace(self.config_of_base, **fields)
        check(config)
        return config

    def part(self, key: str, tree: Any) -> Any:
        memo = f"{key}={tree!r}"
        if memo not in self.parts:
            self.parts[memo] = build(TYPES[key], tree, key)
        return self.parts[memo]

    def option(self, group: str, name: Any) -> Tree:
        if not isinstance(name, str):
            raise RequestError(f"{group}={name!r}: choose a file of conf/{group} by name, or set keys below {group}")
        return self.group(group, name)


def _axes(tree: Tree, prefix: str, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """(path, values) of every leaf, `model.width: 3` as `model: {width: 3}`; a group's `name` chooses its file."""
    for key, value in tree.items():
        here = (*path, *str(key).split("."))
        if isinstance(value, dict):
            yield from _axes(value, prefix, here)
            continue
        choices = value if isinstance(value, list) else [value]
        if not choices:
            raise RequestError(f"{prefix}{'.'.join(here)}=[]: an axis needs at least one value")
        yield (here[:1] if len(here) == 2 and here[1] == "name" and here[0] in GROUPS else here), choices


def _distinct(axes: Iterator[tuple[tuple[str, ...], list[Any]]], prefix: str) -> dict[tuple[str, ...], list[Any]]:
    """The axes by path; the same key twice is refused, and so is one that cannot be varied."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for path, choices in axes:
        key = ".".join(path)
        if path in found:
            raise RequestError(f"{prefix}{key}: given twice")
        if path[0] not in (*GROUPS, *PLAIN) or len(path) > (2 if path[0] in GROUPS else 1):
            known = (*GROUPS, *PLAIN)
            hint = did_you_mean(path[0], known)
            raise RequestError(f"{prefix}{key}: cannot be varied{hint}; allowed are {', '.join(known)}")
        found[path] = choices
    return found
