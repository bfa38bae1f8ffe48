"""The live view of a plan, as something that rich draws: one bar, four lines, who is at work, what happened last."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from proxytrain.monitor.progress import AtWork, PlanProgress
from proxytrain.monitor.text import counts_line, duration, flops, left_line, losses, speed_line, tokens

STATE_COLOURS = {"done": "green", "running": "cyan", "waiting": "dim", "failed": "bold red", "diverged": "yellow"}
SHOWN_EVENTS = 5
FIXED = 9  # lines besides packs and events: bar, runs, speed, time, two heads with a gap each, the last


def frame(p: PlanProgress, began: float, height: int, final: bool = False) -> RenderableType:
    """The view of a plan for a terminal of `height` lines; the final one, which stays, has the bar and the counts."""
    lines: list[RenderableType] = [_bar(p), _runs(p)]
    if final:
        return Group(*lines)
    lines += [_line("speed", speed_line(p)), _line("time", _time(p, began))]
    count = SHOWN_EVENTS if height >= FIXED + SHOWN_EVENTS + 3 else 1
    events = p.events[-count:] if height > FIXED + 2 else []
    if p.at_work:
        lines += [Text(), _packs(p.at_work, max(1, height - FIXED - len(events)))]
    if events:
        lines += [Text(), Text("last events", "dim"), *map(_event, events)]
    return Group(*lines, Text())  # on the last line a terminal echoes ^C, which must not wrap


def _bar(p: PlanProgress) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    bar = ProgressBar(total=1.0, completed=p.share, complete_style="cyan", finished_style="green")
    grid.add_row(Text(p.plan.name, "bold"), bar, f"{p.share:.0%} · {tokens(p.tokens)} of {tokens(p.total)} tokens")
    return grid


def _runs(p: PlanProgress) -> Text:
    parts = [Text(part, STATE_COLOURS[part.split()[1]]) for part in counts_line(p)]
    return _line("runs", Text(" · ").join(parts))


def _time(p: PlanProgress, began: float) -> str:
    gone = f"{duration(time.time() - began)} so far"
    return f"{left_line(p)} · {gone}" if p.seconds_left is not None else gone


def _line(head: str, text: Text | str) -> Text:
    return Text.assemble((f"{head:6}", "dim"), text, no_wrap=True, overflow="ellipsis")


def _packs(at_work: list[AtWork], most: int) -> RenderableType:
    """A line a pack: shape, how far, how fast, losses of its members; and where, if on several machines."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False, expand=True)
    hosts = {a.on.host for a in at_work}
    for name, how in {
        "width": {"justify": "right"},
        "runs": {"justify": "right"},
        "done": {"justify": "right"},
        "tokens/s": {"justify": "right"},
        "FLOP/s": {"justify": "right"},
    }.items():
        table.add_column(name, no_wrap=True, **how)  # type: ignore[arg-type]
    table.add_column("losses now", ratio=2, no_wrap=True, overflow="ellipsis")
    if len(hosts) > 1:
        table.add_column("on", ratio=1, no_wrap=True, overflow="ellipsis")
    shown = at_work if len(at_work) <= most else at_work[: most - 1]
    for a in shown:
        size = sum(m.tokens for m in a.pack.members)
        members = a.report.members if a.report else len(a.pack.members)
        row = [
            str(a.pack.members[0].recipe.model.width),
            str(members),
            f"{a.tokens / size:.0%}",
            tokens(a.speed) if a.speed else "",
            flops(a.flops) if a.speed else "",
            losses(a.report.loss) if a.report else "starting",
        ]
        if a.attempt > 1:
            row[-1] += f" (attempt {a.attempt})"
        table.add_row(*row, *([a.on.job or a.on.host] if len(hosts) > 1 else []))
    more = len(at_work) - len(shown)
    return Group(table, Text(f"and {more} more packs", "dim")) if more else table


def _event(event: tuple[float, str]) -> Text:
    at, text = event
    what = text.split()[0]
    when, how = (time.strftime("%H:%M:%S ", time.localtime(at)), "dim"), (what, STATE_COLOURS.get(what, ""))
    return Text.assemble(when, how, text.removeprefix(what), no_wrap=True, overflow="ellipsis")
