"""What a store holds, whether it is whole, and what of it may go."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from typing import Any

from msgspec import to_builtins

from proxytrain.cli import ask
from proxytrain.cli.verb import JSON, flag, verb
from proxytrain.errors import RequestError

WATCH_SECONDS = 0.5  # between looks at the clock


@verb(
    "what is done, running, waiting and failed, and why; without sweep.name, of all sweeps",
    JSON,
    flag("--watch", help="follow one sweep until it is over, from any machine that sees the store"),
    flag("--check", help="read all files: are they whole, does all agree?"),
)
def status(options: argparse.Namespace) -> int:
    from proxytrain.launch import housekeeping
    from proxytrain.monitor.text import disk_line, progress_line, run_lines
    from proxytrain.monitor.watch import progress_of
    from proxytrain.store.store import Store

    config = ask.config(options, "status")
    store = Store(config.store)
    named = ask.named(options)
    names = [config.sweep.name] if named else store.sweeps()
    if options.watch:
        return _watch(options, store, names)
    if not names and not options.json:
        print(f"no sweep in {store.root}")
        return 0
    queue = _queue(store, names)
    failed = False
    content = {}
    for name in names:
        try:
            state = progress_of(store, name)
        except RequestError as error:
            if named:
                raise
            print(f"{name}: {error}", file=sys.stderr)
            continue
        counts = state.counts
        failed = failed or "failed" in counts
        content[name] = {
            "counts": counts,
            "progress": state.summary(),
            "runs": to_builtins(state.runs),
            "jobs": [vars(j) for j in queue.get(name, [])],
        }
        if options.check:
            wrong = list(housekeeping.problems(store, state.plan))
            content[name]["problems"] = wrong
            failed = failed or bool(wrong)
        if not options.json:
            print(f"{name}: " + ", ".join(f"{n} {what}" for what, n in sorted(counts.items())))
            if state.at_work:
                print(f"  {progress_line(state)}")
            if name in queue and set(counts) != {"done"}:
                idle = f"none in the queue (logs: {store.sweep(name)}/slurm); submit goes on"
                print(f"  jobs: {'; '.join(map(str, queue[name])) or idle}")
            if named or "failed" in counts:
                print("\n".join(run_lines(state, everything=named)))
            if options.check:
                print("\n".join(f"  {line}" for line in wrong) if wrong else "  checked: all files are whole")
    if options.json:
        print(json.dumps(content, indent=1))
    else:
        print(f"disk of {store.root}: {disk_line(housekeeping.disk_use(store))}")
    return 1 if failed else 0


@verb(
    "free disk: states that nothing waits for, what the dead left; train.keep_weights=none|final|all says what stays",
    flag("--dry-run", help="only say what would go"),
)
def gc(options: argparse.Namespace) -> int:
    from proxytrain.launch.housekeeping import collect
    from proxytrain.monitor.text import size
    from proxytrain.store.store import Store

    config = ask.config(options, "gc")
    store = Store(config.store)
    went = collect(store, config.train.keep_weights, dry_run=options.dry_run)
    for kind, (count, amount) in went.items():
        print(f"{count} {kind}, {size(amount)}")
    total = size(sum(amount for _, amount in went.values()))
    print(f"{'would free' if options.dry_run else 'freed'} {total} in {store.root}")
    return 0


def _watch(options: argparse.Namespace, store: Any, names: list[str]) -> int:
    """Follow a sweep; the one that was named, else the only one that is not over."""
    import time

    from proxytrain.monitor.console import Console
    from proxytrain.monitor.watch import Watch
    from proxytrain.plan import freeze

    if options.json or options.check or options.quiet:
        raise RequestError("--watch: shows progress as it comes; leave out --json, --check and --quiet")
    if len(names) > 1:
        names = [n for n in names if _goes_on(store, n)] or names
    if len(names) != 1:
        there = f"there are {', '.join(names)}" if names else f"there is none in {store.root}"
        raise RequestError(f"sweep.name: --watch follows one sweep; {there}")
    path = store.sweep(names[0]) / "plan.json"
    watch, read = Watch(freeze.load(path), store), path.stat().st_mtime_ns
    with Console(stream="stdout").training() as view, suppress(KeyboardInterrupt):
        while not (seen := watch.look()).over:
            view.show(seen)
            while not view.due():
                time.sleep(WATCH_SECONDS)
            if path.stat().st_mtime_ns != read:  # planned again
                watch, read = Watch(freeze.load(path), store), path.stat().st_mtime_ns
        view.show(seen, final=True)
        return 1 if "failed" in seen.counts else 0
    return 130


def _goes_on(store: Any, name: str) -> bool:
    from proxytrain.monitor.watch import progress_of

    try:
        return not progress_of(store, name).over
    except RequestError:  # a plan that this version does not read
        return False


def _queue(store: Any, names: list[str]) -> dict[str, list[Any]]:
    """Jobs of the sweeps that were submitted, by name; {} where there are none, or no queue to ask."""
    from proxytrain.launch import slurm

    submitted = {name: store.sweep(name) for name in names if (store.sweep(name) / "slurm").is_dir()}
    if not submitted:
        return {}
    try:
        found = slurm.queue()
    except RequestError as error:
        print(error, file=sys.stderr)
        return {}
    return {name: found.get(str(folder.resolve()), []) for name, folder in submitted.items()}
