"""Hold out a schedule, the longest runs, or the largest size, predict it from the rest, keep the errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from proxytrain.arrays import Array
from proxytrain.fit.curves.curve import Curve

SAME_SCHEDULE = 0.1  # schedules whose relative rates differ by no more anywhere after warm-up are one
CUTS = 4  # schedules held out, at most
BLOCKS = 6
LEAST_HALF_ROWS = 20  # of a curve's half, for it to tell of the other


@dataclass(frozen=True)
class CurveCut:
    """Curves to fit, and curves to predict from update `after[i]` on."""

    name: str
    fitted: tuple[Curve, ...]
    held: tuple[Curve, ...]
    after: tuple[int, ...]


def schedules(curves: Sequence[Curve]) -> list[list[int]]:
    """Groups of curves (by index) whose schedules are alike at equal shares, the first of each being its pattern."""
    groups: list[list[int]] = []
    shapes = [c.shape() for c in curves]
    risen = [int(np.ceil(len(shape) * c.warmup / c.updates)) for shape, c in zip(shapes, curves)]
    for i, shape in enumerate(shapes):
        for group in groups:
            both = max(risen[i], risen[group[0]])
            if np.abs(shape - shapes[group[0]])[both:].max(initial=0.0) <= SAME_SCHEDULE:
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def part(curves: Sequence[Curve]) -> bool:
    """Whether rates part at an equal update after warm-up, so that annealing can be told from progress."""
    if not curves:
        return False
    longest = max(curves, key=lambda c: c.updates)
    for c in curves:
        first, n = max(c.warmup, longest.warmup), c.updates
        apart = np.abs(c.lr[first:n] / c.lr.max() - longest.lr[first:n] / longest.lr.max())
        if apart.max(initial=0.0) > SAME_SCHEDULE:
            return True
    return False


def cuts(curves: Sequence[Curve]) -> list[CurveCut]:
    """By schedule, by length (the longest of three, else the later half of training) and by size; the rates of what is
    left part.
    """
    out = []
    groups = schedules(curves)
    if len(groups) >= 3:
        chosen = sorted({round(i) for i in np.linspace(0, len(groups) - 1, min(CUTS, len(groups)))})
        for g in chosen:
            held = [curves[i] for i in groups[g]]
            rest = [c for i, c in enumerate(curves) if i not in groups[g]]
            if part(rest):
                out.append(_cut(f"schedule of {held[0].name}", rest, held))
    lengths = sorted({c.updates for c in curves})
    longest, half = lengths[-1], lengths[-1] // 2
    shorter = [c for c in curves if c.updates < longest]
    begun = [shortened(c, half) if c.updates > half else c for c in curves if (c.step <= half).sum() >= LEAST_HALF_ROWS]
    later = [c for c in curves if c.updates > half]
    if len(lengths) >= 3 and part(shorter):
        out.append(_cut(f"updates < {longest}", shorter, [c for c in curves if c.updates == longest]))
    elif part(begun):
        out.append(CurveCut(f"first {half} updates", tuple(begun), tuple(later), (half,) * len(later)))
    sizes = sorted({c.params for c in curves if c.params})
    if len(sizes) >= 3:
        rest = [c for c in curves if c.params != sizes[-1]]
        held = [c for c in curves if c.params == sizes[-1]]
        if part(rest):
            out.append(CurveCut(f"params < {sizes[-1]:.3g}", tuple(rest), tuple(held), tuple(c.warmup for c in held)))
    return out


def _cut(name: str, rest: Sequence[Curve], held: Sequence[Curve]) -> CurveCut:
    """Whole curves held out, of which what comes after the parting from others is predicted."""
    return CurveCut(name, tuple(rest), tuple(held), tuple(parting(c, rest) for c in held))


def shortened(curve: Curve, updates: int) -> Curve:
    """The first `updates` of a curve."""
    keep = curve.step <= updates
    val = {}
    if curve.val_step is not None and curve.val_loss is not None:
        early = curve.val_step <= updates
        val = {"val_step": curve.val_step[early], "val_loss": curve.val_loss[early]} if early.any() else {}
    cut = {
        "lr": curve.lr[:updates],
        "step": curve.step[keep],
        "loss": curve.loss[keep],
        "val_step": None,
        "val_loss": None,
    }
    return replace(curve, **{**cut, **val})  # type: ignore[arg-type]


def parting(curve: Curve, others: Sequence[Curve]) -> int:
    """The update until which some other curve had the same rates: only what comes later is predicted."""
    last = curve.warmup
    for other in others:
        n = min(curve.updates, other.updates)
        if other.params == curve.params:
            differs = np.abs(curve.lr[:n] - other.lr[:n]) > 1e-3 * curve.lr.max()
            last = max(last, int(np.argmax(differs)) if differs.any() else n)
    return min(last, curve.updates - 1)


def later_rows(curve: Curve, after: int) -> tuple[Array, Array]:
    """Steps and losses (m,) of what a held-out curve is scored on."""
    keep = curve.step > after
    if not keep.any():
        keep[-1] = True
    return np.maximum(curve.step[keep], 1), curve.loss[keep]


def block_errors(step: Array, loss: Array, at: Array, predicted: Array) -> Array:
    """log(prediction / truth) of the means over up to six stretches, so that the noise of rows is no error: (b,).

    `predicted` (n,) are losses after `at` (n,) updates, between which the prediction is linear.
    """
    fitted = np.interp(step, at, predicted)
    blocks = np.array_split(np.arange(len(step)), min(BLOCKS, len(step)))
    return np.array([np.log(fitted[b].mean() / loss[b].mean()) for b in blocks])
