"""Measures what the updates of a plan's packs take on this machine: it refines times, and changes no plan."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

from proxytrain.launch.machine import Machine, no_compiler
from proxytrain.launch.settle import settle
from proxytrain.plan import speed
from proxytrain.plan.freeze import Plan
from proxytrain.plan.pack import Pack, work
from proxytrain.store.store import Store

PROBE_SECONDS = 2.0  # of updates of a kind, after the first
PROBE_BLOCKS = 5


def probe(plan: Plan, store: Store, here: Machine) -> Iterator[str]:
    """Peak FLOP/s and bytes/s of a worker, then seconds of an update of every shape and size; a line as each is known.

    Updates are timed eagerly, and compiled where `train.compile` and the machine allow it.
    What was found is kept in the store's `speeds.json`.
    """
    import torch

    from proxytrain.corpus import load

    settle(here.threads)
    device = torch.device(here.device)
    corpus = load(store.corpora(), plan.corpus)
    precisions = {p.members[0].recipe.precision for p in plan.packs} or {"float32"}
    flops, bandwidth = peaks(device, "bfloat16" if precisions == {"bfloat16"} else "float32")
    speed.keep(store, here.name, speed.MachineSpeed(flops=flops, bandwidth=bandwidth))
    yield f"{here.name}: {flops:.3g} FLOP/s, {bandwidth:.3g} bytes/s"
    known: set[str] = set()
    for pack in plan.packs:
        recipe = pack.members[0].recipe
        compiling = plan.train.compile == "on" or (plan.train.compile == "auto" and here.device == "cuda")
        for compiled in (False, True) if compiling and no_compiler(here.device) is None else (False,):
            key = speed.key(pack, compiled)
            if key in known:
                continue
            known.add(key)
            took = _measured(pack, corpus, plan.micro_batches[pack.id], device, compiled)
            speed.keep(store, here.name, speed.MachineSpeed(updates={key: speed.UpdateSpeed(seconds=took)}))
            tokens = recipe.batch_tokens * len(pack.members)
            used = work(pack) / sum(m.tokens for m in pack.members) * tokens / took / flops
            yield (
                f"width {recipe.model.width}, {len(pack.members)} members, {'compiled' if compiled else 'eager'}: "
                f"{1000 * took:.1f} ms an update, {tokens / took:,.0f} tokens/s, {used:.0%} of peak"
            )
    if not plan.packs:
        yield "all is trained: there are no packs to measure"


def peaks(device: object, precision: str = "float32") -> tuple[float, float]:
    """FLOP/s of a large matrix product, bytes/s of a copy that no cache holds: of one worker, at best."""
    import torch

    cuda = str(device).startswith("cuda")
    n, floats = (8192, 1 << 28) if cuda else (1024, 1 << 25)
    a, b = (torch.randn(n, n, device=device, dtype=getattr(torch, precision)) for _ in range(2))  # type: ignore[call-overload]
    x, y = (torch.ones(floats, device=device) for _ in range(2))  # type: ignore[call-overload]
    return 2 * n**3 / best(lambda: a @ b, cuda), 8 * floats / best(lambda: y.copy_(x), cuda)


def best(action: Callable[[], object], cuda: bool, times: int = 5) -> float:
    """The least seconds of several turns, after one that warms up."""
    import torch

    seconds = []
    for _ in range(times + 1):
        began = time.perf_counter()
        action()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _measured(pack: Pack, corpus: object, micro_batches: int, device: object, compiled: bool) -> float:
    """Median seconds of an update of a pack that starts from its initial weights."""
    import torch

    from proxytrain.train.update import fresh

    step = fresh(pack, corpus, micro_batches, device, compiled)  # type: ignore[arg-type]

    most = max(1, min(m.tokens for m in pack.members) // step.recipe.batch_tokens)

    def block(updates: int) -> float:
        updates = min(updates, most)
        for a in step.rows.active:
            a.position = a.member.start
        began = time.perf_counter()
        step.updates(updates, lambda: False)
        if str(device).startswith("cuda"):
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / updates

    block(6)  # compiles, captures, fills caches
    count = max(1, min(100, int(PROBE_SECONDS / PROBE_BLOCKS / block(2))))
    return statistics.median(block(count) for _ in range(PROBE_BLOCKS))
