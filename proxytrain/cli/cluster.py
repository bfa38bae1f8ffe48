"""A plan in the hands of others: SLURM and its workers."""

from __future__ import annotations

import argparse
import sys

from msgspec.structs import replace

from proxytrain.cli import ask
from proxytrain.cli.verb import flag, verb
from proxytrain.errors import RequestError

PATIENCE = 60.0  # seconds for which a machine is held for the mirror; `launch.finish` or `track sync` send the rest


@verb(
    "write the plan and a SLURM script (launch=slurm), submit it as an array of workers, print its job, leave",
    flag("--dry-run", help="print the script; submit nothing"),
)
def submit(options: argparse.Namespace) -> int:
    from proxytrain.config.schema import Slurm
    from proxytrain.launch import script, slurm
    from proxytrain.launch.machine import machine
    from proxytrain.monitor.text import plan_lines
    from proxytrain.plan.parts import unfinished
    from proxytrain.sweep import main as job
    from proxytrain.track.beside import check
    from proxytrain.track.beside import overrides as tracked

    launch = ask.config(options).launch
    if not isinstance(launch, Slurm):
        raise RequestError(f"launch={launch.name}: submit needs launch=slurm")
    script.check(launch)
    check(ask.config(options).track)
    if not options.dry_run:
        slurm.needs("sbatch")
    asked, console = ask.request(options, "submit launch.finish=true" if launch.finish else "submit")
    made = job.plan(asked, None if options.dry_run else job.afford)
    folder, named = asked.folder.resolve(), f"{ask.where(asked)} sweep.name={asked.name}"
    packs = unfinished(made, asked.store)
    if not options.dry_run:
        if not job.missing(asked.store, asked.ids):
            print(
                f"{asked.name}: all {len(asked.ids)} runs are done, nothing to submit; `proxytrain report` has the page"
            )
            return 0
        if not packs:
            print(f"{asked.name}: what is left has failed; `proxytrain retry{named}` clears that", file=sys.stderr)
            return 1
    console.say("\n".join(plan_lines(made)))
    if launch.workers > len(packs):
        console.say(f"note: {launch.workers} workers for {len(packs)} packs; those without one wait for the others")
    device, tracking = machine(asked.config).device, tracked(asked.config.track)
    scripts = script.scripts(launch, folder, device, tracking, options.overrides, options.config_dir)
    if options.dry_run:
        print("\n".join(scripts.values()), end="")
        return 0
    for what, id in slurm.submit(launch, folder, scripts).items():
        print(f"job {id}: {folder}/slurm/{what}.sh")
    print(f"`proxytrain status{named}` follows it, `proxytrain cancel{named}` stops it; all that is saved stays")
    return 0


@verb("take packs from a plan until none is left: what sweep starts, and what a cluster's tasks run")
def work(options: argparse.Namespace) -> int:
    from proxytrain.config.schema import Slurm
    from proxytrain.launch import slurm
    from proxytrain.launch.machine import device
    from proxytrain.launch.worker import Stop
    from proxytrain.launch.worker import work as worker
    from proxytrain.monitor.console import Console
    from proxytrain.plan import freeze
    from proxytrain.store.store import Store
    from proxytrain.track.beside import Beside

    config = ask.config(options, "work")
    launch = config.launch
    store = Store(config.store)
    made = freeze.load(store.sweep(config.sweep.name) / "plan.json")
    given = [k.removeprefix("train.") for k in ask.given(options) if k.startswith("train.")]
    train = replace(made.train, **{k: getattr(config.train, k) for k in given})
    kind = device(replace(config, train=train))
    made = freeze.changed(made, train, kind)
    stop = Stop(None if isinstance(launch, Slurm) else launch.time_limit)
    if isinstance(launch, Slurm):
        slurm.begin(made.name)
    with Beside(config.track, store, made.name, Console(options.quiet), PATIENCE) as mirror:
        code = worker(made, store, kind, launch, stop)
        mirror.interrupted = code == 130
    return slurm.leave(code, stop.why, launch.requeue) if isinstance(launch, Slurm) else code


@verb("take a sweep's jobs out of the SLURM queue; workers save, and another submit goes on")
def cancel(options: argparse.Namespace) -> int:
    from proxytrain.launch import slurm
    from proxytrain.plan import freeze
    from proxytrain.store.store import Store

    config = ask.config(options, "cancel")
    folder = Store(config.store).sweep(config.sweep.name)
    freeze.load(folder / "plan.json")
    ids = slurm.cancel(folder)
    print(f"{config.sweep.name}: " + (f"cancelled {', '.join(ids)}; submit goes on" if ids else "no job in the queue"))
    return 0


@verb("clear a sweep's failures: the next sweep, submit or work tries those runs again")
def retry(options: argparse.Namespace) -> int:
    from proxytrain.plan import freeze, parts
    from proxytrain.store.store import Store

    config = ask.config(options, "retry")
    store = Store(config.store)
    cleared = parts.retry(freeze.load(store.sweep(config.sweep.name) / "plan.json"), store)
    print(f"{config.sweep.name}: {cleared} failures cleared")
    return 0
