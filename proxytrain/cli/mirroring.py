"""What a sweep has to say, said elsewhere."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from typing import Any

from proxytrain.cli import ask
from proxytrain.cli.verb import flag, verb
from proxytrain.errors import RequestError


@verb(
    "`track sync`: sweeps into W&B, all that is not there yet; `track dashboard`: a view of the sweep that is there",
    flag("--follow", help="go on until the sweep has ended"),
    flag("--beside", help="go on until standard input ends: what sweep and work start with track=wandb"),
)
def track(options: argparse.Namespace) -> int:
    from proxytrain.config.schema import Wandb
    from proxytrain.plan import freeze
    from proxytrain.process import say
    from proxytrain.store.store import Store
    from proxytrain.track.client import mode
    from proxytrain.track.mirror import Mirror

    what = ask.first_word(options)
    if what not in ("sync", "dashboard"):
        raise RequestError(f"{what or 'nothing'} asked: allowed are `track sync` and `track dashboard`")
    if not any(o.startswith("track=") for o in options.overrides):
        options.overrides.insert(0, "track=wandb")
    config = ask.config(options, "track")
    if what == "dashboard":
        return _dashboard(config)
    if not isinstance(config.track, Wandb):
        raise RequestError("track=none: nothing is mirrored; set track=wandb, or leave the key out")
    how = mode(config.track)
    if how == "disabled":
        raise RequestError("WANDB_MODE=disabled: nothing is sent; unset it, or set track.mode=offline or online")
    store = Store(config.store)
    names = [config.sweep.name] if ask.named(options) else _all(store.sweeps())
    if options.follow and len(names) != 1:
        raise RequestError(f"sweep.name: --follow follows one sweep; there are {', '.join(names) or 'none'}")
    if not names:
        print(f"no sweep in {store.root}")
    for name in names:
        freeze.load(store.sweep(name) / "plan.json")
    stop, over = threading.Event(), threading.Event()
    if options.beside:
        os.nice(10)
        threading.Thread(target=_wait_for_the_end, args=(over,), daemon=True).start()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    elif not options.follow:
        over.set()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    codes = [0]
    for name in names:
        mirror = Mirror(store, name, config.track, how == "online", say, stop=stop, over=over, follow=options.follow)
        codes.append(mirror.run())
        if not options.beside:
            left = mirror.behind()
            place = f"{store.sweep(name)}/wandb; `wandb sync` sends it" if how == "offline" else "W&B"
            print(f"{name}: " + (f"{left} not sent" if left else f"all in {place}"))
    return max(codes)


def _dashboard(config: Any) -> int:
    """Save the view of a sweep; its address is remembered beside what was sent."""
    from proxytrain.files.documents import write_document
    from proxytrain.store.store import Store
    from proxytrain.track.dashboard import save
    from proxytrain.track.mirror import Sent, memory

    folder = Store(config.store).sweep(config.sweep.name)
    known = memory(folder)
    if not known:
        raise RequestError(f"sweep.name={config.sweep.name}: not in W&B yet; `proxytrain track sync` first")
    pictures = sorted(p.stem for p in folder.glob("figures/*.png"))
    url = save(config.track, config.sweep.name, pictures, known.get("dashboard", {}).get("view", Sent()).url)
    write_document(folder / "wandb.json", {**known, "dashboard": {"view": Sent(url=url)}})
    print(url)
    return 0


def _all(names: list[str]) -> list[str]:
    """Sweeps; what `verify` trains belongs to the sweep that it verifies."""
    return [n for n in names if not (n.endswith(".verify") and n.removesuffix(".verify") in names)]


def _wait_for_the_end(over: threading.Event) -> None:
    sys.stdin.buffer.read()
    over.set()
