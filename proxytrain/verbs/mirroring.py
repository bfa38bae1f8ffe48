"""What a sweep has to say, said elsewhere."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading

from proxytrain.errors import RequestError
from proxytrain.verbs import ask
from proxytrain.verbs.verb import flag, verb


@verb(
    "`track sync` mirrors sweeps into W&B, all that is not there yet; without sweep.name, of all sweeps",
    flag("--follow", help="go on until the sweep has ended"),
    flag("--beside", help="go on until standard input ends: what sweep and work start with track=wandb"),
)
def track(options: argparse.Namespace) -> int:
    from proxytrain.process import say
    from proxytrain.store import Store
    from proxytrain.track.client import mode
    from proxytrain.track.mirror import Mirror

    if options.overrides[:1] != ["sync"]:
        raise RequestError(f"track {' '.join(options.overrides[:1])}: `track sync` is all it does")
    rest = options.overrides[1:]
    options.overrides = rest if any(o.startswith("track=") for o in rest) else ["track=wandb", *rest]
    config = ask.config(options)
    how = mode(config.track)
    if how == "disabled":
        raise RequestError("WANDB_MODE=disabled: nothing is sent; unset it, or set track.mode=offline or online")
    store = Store(config.store)
    names = [config.sweep.name] if ask.named(options) else _all(store.sweeps())
    if options.follow and len(names) != 1:
        raise RequestError(f"sweep.name: --follow follows one sweep; there are {', '.join(names) or 'none'}")
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


def _all(names: list[str]) -> list[str]:
    """Sweeps; what `verify` trains belongs to the sweep that it verifies."""
    return [n for n in names if not (n.endswith(".verify") and n.removesuffix(".verify") in names)]


def _wait_for_the_end(over: threading.Event) -> None:
    sys.stdin.buffer.read()
    over.set()
