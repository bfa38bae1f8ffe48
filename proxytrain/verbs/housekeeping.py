"""What a store holds, whether it is whole, and what of it may go."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from proxytrain.errors import RequestError
from proxytrain.verbs import ask
from proxytrain.verbs.verb import JSON, flag, verb


@verb(
    "what is done, running, waiting and failed, and why; without sweep.name, of all sweeps",
    JSON,
    flag("--check", help="read all files: are they whole, does all agree?"),
)
def status(options: argparse.Namespace) -> int:
    from proxytrain import housekeeping
    from proxytrain import sweep as job
    from proxytrain.store import Store
    from proxytrain.track.text import disk_line, run_lines

    config = ask.config(options)
    store = Store(config.store)
    named = ask.named(options)
    names = [config.sweep.name] if named else store.sweeps()
    if not names:
        print(f"no sweep in {store.root}")
        return 0
    queue = _queue(store, names)
    failed = False
    content = {}
    for name in names:
        try:
            state = job.progress_of(store, name)
        except RequestError as error:
            if named:
                raise
            print(f"{name}: {error}", file=sys.stderr)
            continue
        counts: dict[str, int] = {}
        for run in state["runs"].values():
            counts[run["state"]] = counts.get(run["state"], 0) + 1
        failed = failed or "failed" in counts
        content[name] = {"counts": counts, "runs": state["runs"], "jobs": [vars(j) for j in queue.get(name, [])]}
        if options.check:
            wrong = list(housekeeping.problems(store, state["plan"]))
            content[name]["problems"] = wrong
            failed = failed or bool(wrong)
        if not options.json:
            print(f"{name}: " + ", ".join(f"{n} {what}" for what, n in sorted(counts.items())))
            if name in queue and set(counts) != {"done"}:
                idle = f"none in the queue (logs: {store.sweep(name)}/slurm); submit goes on"
                print(f"  jobs: {'; '.join(map(str, queue[name])) or idle}")
            if named or "failed" in counts:
                print("\n".join(run_lines(state, everything=named)))
            if options.check:
                print("\n".join(f"  {line}" for line in wrong) if wrong else "  checked: all files are whole")
    if not options.json:
        print(f"disk of {store.root}: {disk_line(housekeeping.disk_use(store))}")
    if options.json:
        print(json.dumps(content, indent=1))
    return 1 if failed else 0


@verb(
    "free disk: states that nothing waits for, what the dead left; train.keep_weights=none|final|all says what stays",
    flag("--dry-run", help="only say what would go"),
)
def gc(options: argparse.Namespace) -> int:
    from proxytrain.housekeeping import collect
    from proxytrain.store import Store
    from proxytrain.track.text import size

    config = ask.config(options)
    store = Store(config.store)
    went = collect(store, config.train.keep_weights, dry_run=options.dry_run)
    for kind, (count, amount) in went.items():
        print(f"{count} {kind}, {size(amount)}")
    total = size(sum(amount for _, amount in went.values()))
    print(f"{'would free' if options.dry_run else 'freed'} {total} in {store.root}")
    return 0


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
