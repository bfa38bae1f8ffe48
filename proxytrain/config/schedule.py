"""Learning-rate schedules as lists of phases; pure functions from token position to learning rate.

A phase covers tokens `(start, end]`. An *open* phase (warmup, hold, power) gives a rate that depends on the position
and its own parameters only, so it may be cut anywhere and runs of different length share it. A *closed* phase (every
decay) depends on its length and is whole or not at all. Positions are whole updates: multiples of the batch.

Sources: WSD 2404.06395, power 2408.13359, infinite 2503.02844, 1-sqrt cooldown and weight averaging 2405.18392, warm-up
and cosine as everywhere.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
from msgspec.structs import replace

from proxytrain.arrays import Array
from proxytrain.config.section import Choice
from proxytrain.errors import RequestError
from proxytrain.types import Negative, Positive, PositiveFloat, PositiveShare, Size, WholeShare

OPEN = ("warmup", "hold", "power")
Shape = Literal["linear", "cosine", "sqrt", "exp", "half_life"]


class Phase(msgspec.Struct, frozen=True):
    """One stretch of a schedule: its kind, its tokens `(start, end]` and its parameters, all absolute."""

    kind: str
    start: int
    end: int
    params: tuple[tuple[str, float], ...]

    @property
    def open(self) -> bool:
        return self.kind in OPEN


class Constant(Choice, frozen=True, kw_only=True, tag="constant"):
    """Warm-up, then hold."""


class InverseSqrt(Choice, frozen=True, kw_only=True, tag="inverse_sqrt"):
    """Warm-up, then lr * sqrt(warmup / n) (1706.03762)."""


class Decay(Choice, frozen=True, kw_only=True):
    """Warm-up, then one decay over all the rest, ending at `final` times the peak."""

    final: WholeShare


class Linear(Decay, frozen=True, kw_only=True, tag="linear"):
    """A linear decay."""


class Cosine(Decay, frozen=True, kw_only=True, tag="cosine"):
    """A cosine decay."""


class WSD(Choice, frozen=True, kw_only=True, tag="wsd"):
    """Warm-up, hold, decay over the last part (2404.06395; 1-sqrt: 2405.18392)."""

    decay: Size  # below 1: a fraction of the run; else tokens
    shape: Shape
    final: WholeShare  # last rate as a share of the peak (exp needs > 0)
    half_life: Positive | None  # tokens; for shape=half_life


class Power(Choice, frozen=True, kw_only=True, tag="power"):
    """Warm-up, lr * min(1, (n / knee)^exponent), decay over the last part (2408.13359)."""

    knee: Positive | None  # tokens up to which the rate is constant
    amplitude: PositiveFloat | None  # instead of knee: a in a * beta * n^exponent, beta: batch/4096
    exponent: Negative
    decay: Size
    shape: Shape
    final: WholeShare
    half_life: Positive | None


class Infinite(Choice, frozen=True, kw_only=True, tag="infinite"):
    """Warm-up, cosine down to a floor, hold for any length, decay over the last part (2503.02844, 2403.08763).

    The way down to the floor takes `cooldown` tokens whatever the run's length, so runs of all lengths share it.
    """

    cooldown: Positive  # tokens
    floor: PositiveShare  # rate of the hold as a share of the peak
    decay: Size
    shape: Shape
    final: WholeShare
    half_life: Positive | None


class Average(Choice, frozen=True, kw_only=True, tag="average"):
    """Warm-up, then hold; the run's result is that of the mean of the weights over the last part (2405.18392)."""

    window: PositiveFloat  # below 1: a fraction of the run; else tokens
    snapshots: Positive  # of the weights that are averaged, evenly spaced, whole updates apart; the last at the end
    half_life: Positive | None  # tokens in which the weight of what is older halves; None: all weigh the same


Schedule = Constant | InverseSqrt | Linear | Cosine | WSD | Power | Infinite | Average
Tailed = WSD | Power | Infinite


def phases(schedule: Schedule, *, lr: float, warmup: int, tokens: int, batch_tokens: int) -> tuple[Phase, ...]:
    """The phases of a run of `tokens` tokens with peak rate `lr`.

    Parameters
    ----------
    schedule : one of the dataclasses above
    lr : peak base learning rate
    warmup, tokens, batch_tokens : tokens; warm-up and decay are rounded to whole updates

    Raises
    ------
    RequestError
        If warm-up and decay do not fit into the run.
    """
    warmup = _updates(warmup, batch_tokens)
    name = schedule.name
    if warmup >= tokens:
        raise RequestError(f"warmup={warmup}: at least as long as the run of {tokens} tokens; give fewer warmup tokens")
    if isinstance(schedule, Decay):
        start = warmup
        tail = Phase(name, start, tokens, _decay_params(lr, schedule.final * lr))
    elif isinstance(schedule, Average):
        tail = _average(schedule, lr, warmup, tokens, batch_tokens)
        start = tail.start
    elif isinstance(schedule, Tailed):
        length = _updates(schedule.decay * tokens if schedule.decay < 1 else schedule.decay, batch_tokens)
        if schedule.decay > 0 and length == 0:
            raise RequestError(
                f"schedule.decay={schedule.decay:g}: shorter than one update of {batch_tokens} tokens; "
                "below 1 it is a fraction of the run, from 1 on it is tokens"
            )
        start = tokens - length
        down = _updates(schedule.cooldown, batch_tokens) if isinstance(schedule, Infinite) else 0
        if isinstance(schedule, Infinite) and down == 0:
            raise RequestError(
                f"schedule.cooldown={schedule.cooldown}: shorter than one update of {batch_tokens} tokens"
            )
        least = warmup + down
        if start < least:
            before = f"{least} of warm-up and cooldown" if least > warmup else f"{warmup} of warm-up"
            raise RequestError(
                f"schedule.decay={schedule.decay:g}: {length} tokens of decay and {before} do not fit into "
                f"a run of {tokens} tokens; a fraction below 1 or at most {max(tokens - least, 0)} tokens"
            )
        tail = None
    else:
        start, tail = tokens, None

    kind, params = "hold", [("lr", lr)]
    if isinstance(schedule, Power):
        kind, params = "power", [("exponent", schedule.exponent), ("knee", _knee(schedule, lr, batch_tokens)), *params]
    elif isinstance(schedule, InverseSqrt):
        kind, params = "power", [("exponent", -0.5), ("knee", float(max(warmup, batch_tokens))), *params]
    stable = Phase(kind, warmup, start, tuple(params))
    top = float(rate(stable, max(warmup, 1)))
    first = Phase("warmup", 0, warmup, (("lr", top), ("over", float(max(warmup, 1)))))
    middle = None
    if isinstance(schedule, Infinite):
        middle = Phase("cosine", warmup, least, _decay_params(lr, schedule.floor * lr))
        stable = Phase("hold", least, start, (("lr", schedule.floor * lr),))
    if isinstance(schedule, Tailed) and start < tokens:
        tail = _tail(schedule, start, tokens, float(rate(stable, max(start, 1))), schedule.final * lr)
    return tuple(p for p in (first, middle, stable, tail) if p is not None and p.end > p.start)


def rate(phase: Phase, position: Array | float) -> Array:
    """Learning rate of one phase at token `position` (any shape), float64."""
    p, n = dict(phase.params), np.asarray(position, dtype=np.float64)
    if phase.kind == "warmup":
        return p["lr"] * n / p["over"]
    if phase.kind in ("hold", "average"):
        return np.full_like(n, p["lr"])
    if phase.kind == "power":
        return p["lr"] * np.minimum(1.0, (n / p["knee"]) ** p["exponent"])
    x = (n - phase.start) / (phase.end - phase.start)
    if phase.kind == "exp":
        return p["from"] * (p["to"] / p["from"]) ** x
    if phase.kind == "half_life":
        return p["from"] * 0.5 ** ((n - phase.start) / p["half_life"])
    shape = {"linear": 1 - x, "cosine": 0.5 * (1 + np.cos(math.pi * x)), "sqrt": 1 - np.sqrt(x)}[phase.kind]
    return p["to"] + (p["from"] - p["to"]) * shape


def learning_rates(schedule: tuple[Phase, ...], positions: Array) -> Array:
    """Learning rates (n,) at token `positions` (n,) in (0, last end]; float64.

    The rate of update s, which reads tokens [s*B, (s+1)*B), is the one at position (s+1)*B.
    """
    positions = np.asarray(positions)
    out = np.empty(positions.shape, dtype=np.float64)
    for phase in schedule:
        inside = (positions > phase.start) & (positions <= phase.end)
        out[inside] = rate(phase, positions[inside])
    return out


def cut(schedule: tuple[Phase, ...], end: int) -> tuple[Phase, ...]:
    """The phases up to token `end`, which lies in an open phase or at the end of a closed one."""
    kept = [replace(p, end=min(p.end, end)) for p in schedule if p.start < end]
    last = schedule[len(kept) - 1]
    if kept[-1] != last and not last.open:
        raise ValueError(f"a closed phase ({last}) cannot be cut at {end}")
    return tuple(kept)


def _knee(schedule: Power, lr: float, batch_tokens: int) -> float:
    if (schedule.knee is None) == (schedule.amplitude is None):
        raise RequestError(
            f"schedule.knee={schedule.knee}, schedule.amplitude={schedule.amplitude}: give exactly one of them"
        )
    if schedule.amplitude is None:
        return float(schedule.knee or 0)
    return (schedule.amplitude * batch_tokens / 4096 / lr) ** (-1 / schedule.exponent)


def _tail(schedule: Tailed, start: int, end: int, top: float, final: float) -> Phase:
    if schedule.shape == "half_life":
        if not schedule.half_life:
            raise RequestError("schedule.half_life=null: shape=half_life needs a half-life in tokens")
        return Phase("half_life", start, end, (("from", top), ("half_life", float(schedule.half_life))))
    if schedule.shape == "exp" and final <= 0:
        raise RequestError(f"schedule.final={schedule.final}: shape=exp decays to a share above 0, such as 0.01")
    return Phase(schedule.shape, start, end, _decay_params(top, min(final, top)))


def _average(schedule: Average, lr: float, warmup: int, tokens: int, batch_tokens: int) -> Phase:
    length = _updates(schedule.window * tokens if schedule.window < 1 else schedule.window, batch_tokens)
    if not 0 < length <= tokens - warmup:
        raise RequestError(
            f"schedule.window={schedule.window:g}: {length} and {warmup} of warm-up in a run of {tokens} tokens; "
            f"a fraction below 1, or {batch_tokens} to {tokens - warmup} tokens"
        )
    every = max(_updates(length / schedule.snapshots, batch_tokens), batch_tokens)
    keep = 0.5 ** (every / schedule.half_life) if schedule.half_life else 1.0
    return Phase("average", tokens - length, tokens, (("every", float(every)), ("keep", keep), ("lr", lr)))


def _decay_params(top: float, final: float) -> tuple[tuple[str, float], ...]:
    return (("from", top), ("to", final))


def _updates(tokens: float, batch_tokens: int) -> int:
    return round(tokens / batch_tokens) * batch_tokens
