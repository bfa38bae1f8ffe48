"""The mean of a member's weights over the last phase of a run under schedule=average (2405.18392).

The weights at the run's end count, and those every so many tokens before it. The mean is kept on the host in float64,
one vector a member, while the phase lasts; training does not read it.
"""

from __future__ import annotations

from typing import NamedTuple

from proxytrain.train.members import Active, Rows


class Window(NamedTuple):
    """Where a member stands in its window: tokens that are left, of how many, and the phase's parameters."""

    left: int
    tokens: int
    every: int
    keep: float  # what an older weight counts against the next one; 1: all alike

    @property
    def counted(self) -> int:
        """Weights that are in the mean, those here included."""
        return -(-self.tokens // self.every) - -(-self.left // self.every)


def window(a: Active) -> Window | None:
    """The window of a member that is in one."""
    phase = a.goal.phases[-1]
    if phase.kind != "average":
        return None
    p = dict(phase.params)
    return Window(phase.end - a.position, phase.end - phase.start, int(p["every"]), p["keep"])


def until_next(a: Active) -> int:
    """Tokens until a member's weights are counted; 0 where they are not."""
    w = window(a)
    return w.left % w.every or w.every if w else 0


def count(rows: Rows) -> None:
    """Add the weights of the members that stand where theirs count."""
    for row, a in enumerate(rows.active):
        w = window(a)
        if w and w.left % w.every == 0 and w.counted:
            weights = rows.state.weights[row].double().cpu().numpy()
            share = 1 / w.counted if w.keep == 1 else (1 - w.keep) / (1 - w.keep**w.counted)
            a.mean = weights if a.mean is None else a.mean + (weights - a.mean) * share
