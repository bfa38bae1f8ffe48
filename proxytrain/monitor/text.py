"""What the verbs print: plans, results and answers as short lines for people."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from proxytrain.plan import cost
from proxytrain.plan.freeze import Plan
from proxytrain.plan.speed import Speeds
from proxytrain.store.store import Store

if TYPE_CHECKING:
    from proxytrain.corpus import Corpus
    from proxytrain.fit import Fit, Prediction
    from proxytrain.monitor.progress import PackReport, PlanProgress
    from proxytrain.store.documents import RunRecord, RunResult
    from proxytrain.sweep.request import Request

RUN_STATES = ("done", "running", "waiting", "failed", "diverged")


def plan_lines(plan: Plan, corpus: Corpus | None = None) -> list[str]:
    """Return a plan in a few lines: runs, what sharing saves, what is left to train, its cost; how the text begins."""
    c = plan.costs
    shared = c.tokens_shared / c.tokens_unshared
    lines = [
        f"{plan.name}: {c.runs} runs as {c.segments} segments; trained once where they begin alike: "
        f"{tokens(c.tokens_shared)} tokens instead of {tokens(c.tokens_unshared)} ({shared:.0%})",
        f"to train: {tokens(c.tokens_to_train)} tokens, {c.flops_to_train:.2g} FLOPs in {len(plan.packs)} packs; "
        f"about {duration(c.seconds)} on {c.workers} {c.device} worker(s), {size(c.memory)} each, "
        f"{size(c.disk)} on disk and {size(c.disk_meanwhile)} of checkpoints meanwhile (estimates)",
    ]
    if plan.target:
        t = plan.target
        lines.append(
            f"target: {describe(t)}, {t.flops:.2g} FLOPs, {c.gap or 0:.1f} times those of the largest run of the sweep"
        )
    return lines + (text_lines(corpus) if corpus else [])


def text_lines(corpus: Corpus) -> list[str]:
    """Return how many documents a corpus has and how it begins, in characters that standard output can show."""
    from proxytrain.corpus import preview  # here, so that `status` does not wait for it

    encoding = sys.stdout.encoding or "utf-8"
    return [line.encode(encoding, "backslashreplace").decode(encoding) for line in preview(corpus).lines(corpus)]


def pack_lines(packs: list[dict[str, Any]], speeds: Speeds) -> list[str]:
    """A line for each of `pack_rows`; `~` marks what is estimated and not measured."""
    lines = [f"{'pack':16}  width depth members     tokens   seconds    MFU   bound    memory  from"]
    for p in packs:
        guess = " " if p["measured"] else "~"
        lines.append(
            f"{p['id']:16}  {p['width']:5} {p['depth']:5} {p['members']:7} {tokens(p['tokens']):>10} "
            f"{guess}{p['seconds']:8.0f} {guess}{p['flops_used']:5.1%} {p['bound']:7.0f} ~{size(p['memory']):>8}  "
            + (f"branch at {tokens(p['start'])}" if p["start"] else "start")
        )
    known = "measured here" if speeds.measured else "estimates; `proxytrain probe` measures them"
    lines.append(
        f"MFU and bound (seconds at full speed, by the roofline) for {speeds.flops:.3g} FLOP/s and "
        f"{speeds.bandwidth:.3g} bytes/s a worker ({known})"
    )
    return lines


def pack_rows(plan: Plan, speeds: Speeds) -> list[dict[str, Any]]:
    """The packs as plain values; `start` is the least token from which a member goes on."""
    device = plan.costs.device
    native = plan.costs.native
    rows = []
    for p in plan.packs:
        model = p.members[0].recipe.model
        compiled = cost.compiled(p, plan.train, device, speeds)
        took = cost.seconds(p, device, speeds, compiled)
        rows.append(
            {
                "id": p.id,
                "width": model.width,
                "depth": model.depth,
                "members": len(p.members),
                "tokens": sum(m.tokens for m in p.members),
                "seconds": took,
                "measured": speeds.update(p, compiled) is not None,
                "flops_used": cost.flops_used(p, took, speeds),
                "bound": cost.bound(p, speeds),
                "memory": cost.memory(p, plan.micro_batches[p.id], device, native),
                "start": min(m.start for m in p.members),
            }
        )
    return rows


def counts_line(p: PlanProgress) -> list[str]:
    """Runs by state, as `24 done`; the usual states always, trouble where there is some."""
    counts = p.counts
    return [f"{counts[s]} {s}" for s in RUN_STATES if counts[s] or s in ("done", "running", "waiting")]


def speed_line(p: PlanProgress) -> str:
    """Tokens and model FLOPs a second, and what share that is of the threads' peak."""
    if not p.at_work:
        return "nobody is at work" if p.seconds_left is None else "workers start"
    packs = f"{len(p.at_work)} {'pack' if len(p.at_work) == 1 else 'packs'} at work"
    if not p.speed:
        return f"{packs}, no report yet"
    peak = f" ({p.utilisation:.0%} of peak)" if p.utilisation is not None else ""
    return f"{tokens(p.speed)} tokens/s · {flops(p.flops)}FLOP/s{peak} · {packs}"


def left_line(p: PlanProgress) -> str:
    """Time left by the plan's cost, and when that is; empty where nobody works."""
    if p.seconds_left is None:
        return ""
    end = time.localtime(time.time() + p.seconds_left)
    return f"about {duration(p.seconds_left)} left, until {time.strftime(_when(p.seconds_left), end)}"


def progress_line(p: PlanProgress) -> str:
    """All that in one line, for a log."""
    done = f"{p.share:.0%}, {tokens(p.tokens)} of {tokens(p.total)} tokens"
    parts = [done, *counts_line(p), "" if p.over else speed_line(p), left_line(p)]
    return ", ".join(part.replace(" · ", ", ") for part in parts if part)


def report_line(report: PackReport) -> str:
    """Return what a worker reports of its pack, for its log."""
    speed, rest = report.tokens_per_second, report.total - report.tokens
    left = f", {duration(rest / speed)} left" if speed else ""
    return (
        f"width {report.width}, {report.members} runs, {tokens(report.tokens)} of {tokens(report.total)} "
        f"tokens, {tokens(speed)} tokens/s{left}; losses {losses(report.loss)}"
    )


def losses(found: Sequence[float | None]) -> str:
    """Return losses of a pack's members at their last update; of many the range."""
    values = [math.nan if v is None else v for v in found]
    if len(values) > 4:
        return f"{min(values):.3f} to {max(values):.3f}"
    return " ".join(f"{v:.3f}" for v in values)


def run_lines(p: PlanProgress, everything: bool) -> Iterator[str]:
    """A line a run; only the failed ones unless `everything`."""
    for run_id, run in p.runs.items():
        if not everything and run.state != "failed":
            continue
        text = f"  {run_id}  {run.state:8}  {describe(p.plan.runs[run_id])}"
        if run.loss is not None:
            text += f"  loss {run.loss:.4f}"
        if run.state == "failed":
            text += f"  {run.why}" + (f" (traceback: {run.log})" if run.log else "")
        if on := run.on:
            who = f"job {on.job}" if on.job else f"pid {on.pid}"
            text += f"  on {on.host} ({who}), attempt {run.attempts}"
        yield text


def result_lines(store: Store, result: RunResult) -> list[str]:
    """The outcome of one run."""
    if result.status != "done":
        return [f"diverged after {result.diverged_at} tokens: {store.run(result.id)}"]
    per_byte = result.bits_per_byte
    bits = f", {per_byte:.4f} bits a byte" if per_byte else ""
    return [
        f"loss {result.final_loss:.4f} ± {result.val_se or 0:.4f} (sampling error of the validation set){bits}",
        f"result: {store.run(result.id) / 'result.json'}",
    ]


def sentence(answer: Prediction, what: str, source: str) -> str:
    """The answer in one sentence; a label of an unsafe answer comes first."""
    down, up = answer.low / answer.loss - 1, answer.high / answer.loss - 1
    text = (
        f"predicted loss of one run with {what}: {answer.loss:.4f}, {answer.level:.0%} interval "
        f"[{answer.low:.4f}, {answer.high:.4f}] ({down:+.1%}, {up:+.1%}); gap {answer.gap:.1f} ({source})"
    )
    return f"{answer.note}: {text}" if answer.note else text


def answer_lines(
    asked: Request, fitted: Fit, answer: Prediction, caveats: list[str], truths: list[RunResult]
) -> list[str]:
    """Prediction of the target, the fit behind it, what to beware of, and the truth where it is known."""
    assert asked.target_record
    lines = [sentence(answer, describe(asked.target_record), str(asked.folder / "fit.json")), *part_lines(answer)]
    lines += [f"  {line}" for line in [*fitted.summary(), *(f"warning: {w}" for w in caveats)]]
    return lines + truth_lines(truths, answer.loss, answer.low, answer.high, answer.level)


def part_lines(answer: Prediction) -> list[str]:
    """What each part of an answer says alone, or why it says nothing."""
    return [f"  {name} alone: {part_text(part)}" for name, part in answer.parts.items()]


def part_text(part: dict[str, Any]) -> str:
    """One part of an answer, in words."""
    if "refused" in part:
        return f"no answer, so they have no part in it: {part['refused']}"
    by = f", by {part['curves']} curves and the law {part['law']}" if "law" in part else ""
    return f"{part['loss']:.4f} [{part['low']:.4f}, {part['high']:.4f}], weight {part['weight']:.2f}{by}"


def truth_lines(truths: list[RunResult], loss: float, low: float, high: float, level: float) -> list[str]:
    """The target's runs, one a seed, against its prediction."""
    lines = [f"truth: the target diverged after {t.diverged_at} tokens" for t in truths if t.status != "done"]
    done = [t for t in truths if t.status == "done"]
    known = [t.final_loss for t in done if t.final_loss is not None]
    if not known:
        return lines
    mean = sum(known) / len(known)
    inside = sum(low <= x <= high for x in known)
    if len(known) == 1:
        text, where = f"{mean:.4f} ± {done[0].val_se or 0:.4f}", "inside" if inside else "OUTSIDE"
    else:
        seeds = ", ".join(str(t.recipe.init_seed) for t in done)
        text = f"{', '.join(f'{x:.4f}' for x in known)} (seeds {seeds}), mean {mean:.4f}"
        where = f"{inside} of {len(known)} inside"
    return [
        *lines,
        f"truth: {text}; prediction {loss:.4f}, error {loss / mean - 1:+.2%}, {where} the {level:.0%} interval "
        f"[{low:.4f}, {high:.4f}]",
    ]


def disk_line(use: dict[str, int]) -> str:
    """Bytes by kind, the largest first."""
    parts = sorted(use.items(), key=lambda item: -item[1])
    return f"{size(sum(use.values()))} (" + ", ".join(f"{kind} {size(n)}" for kind, n in parts) + ")"


def describe(record: RunRecord) -> str:
    """Return a run in a few words."""
    c = record.config
    return (
        f"width {c.model.width}, depth {c.model.depth}, {tokens(c.tokens)} tokens, "
        f"{record.schedule}, lr {c.lr:g}, seed {c.init_seed}"
        + (f"/{c.data_seed}" if c.data_seed != c.init_seed else "")
    )


def tokens(count: float) -> str:
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.3g}{letter}"
    return f"{count:.0f}"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    for unit, name, format in ((60, "min", ".0f"), (3600, "h", ".1f")):
        if seconds < 120 * unit:
            return f"{seconds / unit:{format}} {name}"
    return f"{seconds / 86400:,.0f} days"


def flops(rate: float) -> str:
    """`21 G`, to be followed by FLOP or FLOP/s."""
    for scale, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if rate >= scale:
            return f"{rate / scale:.3g} {letter}"
    return f"{rate:.0f} "


def _when(seconds: float) -> str:
    """How the time in so many seconds is written: with the day where it is far."""
    return "%H:%M" if seconds < 43200 else "%a %H:%M" if seconds < 518400 else "%d %b"


def size(count: float) -> str:
    for scale, letter in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= scale:
            return f"{count / scale:.3g} {letter}"
    return f"{count:.0f} B"
