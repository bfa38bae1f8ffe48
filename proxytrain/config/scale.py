"""Sizes of a composed tree times the factors of `conf/scale/`: those that files give, not those of the command line.

It happens once, before anything is read from the tree, so nothing after it knows of a scale: not grids, runs or ids.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from proxytrain.config.schema import Scale
from proxytrain.config.section import build
from proxytrain.errors import RequestError
from proxytrain.types import parse_number

Tree = dict[str, Any]
IN_TOKENS = ("tokens", "warmup", *(f"schedule.{k}" for k in ("knee", "cooldown", "half_life", "decay", "window")))
SHARES = ("schedule.decay", "schedule.window")  # of the run, where they are below 1
FACTORS = {  # that of `flops` is tokens and size together
    "model.width": "width",
    "model.depth": "depth",
    "batch_tokens": "batch",
    **dict.fromkeys((*IN_TOKENS, "flops"), "tokens"),
}


def enlarged(tree: Tree, given: Collection[str]) -> Tree:
    """The tree of the same sweep written out at the scaled sizes: base, grids and target; its own factors are 1.

    Parameters
    ----------
    tree : as Hydra composes it
    given : dotted keys whose values stand as they are (the command line's)

    Raises
    ------
    RequestError
        For a factor that is not above 0, that makes a size vanish, or two sizes of an axis the same.
    """
    scale: Scale = build(Scale, tree.get("scale"), "scale")
    model = tree.get("model", {})
    steps = {"model.width": _step(model.get("head_size")), "batch_tokens": _step(model.get("context"))}
    return {**_sized(tree, scale, steps, given), "scale": dict.fromkeys(scale.__struct_fields__, 1)}


def _sized(value: Any, scale: Scale, steps: dict[str, int], given: Collection[str] = (), key: str = "") -> Any:
    """A tree, a list (an axis) or a number, scaled as its dotted key says; all else as it is."""
    if key == "sweep.grids" and isinstance(value, list):
        return [_sized(grid, scale, steps) for grid in value]
    if key == "sweep.target":
        return _sized(value, scale, steps)
    if isinstance(value, dict):
        prefix = f"{key}." if key else ""
        return {k: _sized(v, scale, steps, given, f"{prefix}{k}") for k, v in value.items()}
    if key in given or key not in FACTORS:
        return value
    if isinstance(value, list):
        sizes = [_sized(v, scale, steps, given, key) for v in value]
        if len(set(map(parse_number, sizes))) < len(set(map(parse_number, value))):
            raise RequestError(
                f"{_said(key, scale)}: {key}={value} would be {sizes}; give a factor that keeps these apart"
            )
        return sizes
    number = parse_number(value)
    if number is None:
        return value
    if key == "flops":
        return number * scale.width**2 * scale.depth * scale.tokens
    factor, step = getattr(scale, FACTORS[key]), steps.get(key, 1)
    if factor == 1 or (key in SHARES and number < 1):
        return value
    size = number * factor
    if not math.isfinite(size):  # which the schema refuses by name
        return size
    whole = round(size / step) * step
    if whole == 0 and number > 0:
        raise RequestError(
            f"{_said(key, scale)}: {key}={value} would be {size:g}, and must be at least {step}; give a larger factor"
        )
    return whole


def _said(key: str, scale: Scale) -> str:
    return f"scale.{FACTORS[key]}={getattr(scale, FACTORS[key]):g}"


def _step(value: Any) -> int:
    """What a size must be a multiple of; 1 for what the schema will refuse."""
    number = parse_number(value)
    return int(number) if number is not None and 1 <= number < float("inf") else 1
