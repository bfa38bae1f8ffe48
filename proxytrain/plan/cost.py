"""What training will take: seconds and bytes of a pack. Estimates, from figures measured on CPU (see FINDINGS.md)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from proxytrain.config.schema import Muon, Train
from proxytrain.kernels.cache import compiler
from proxytrain.model import accounting
from proxytrain.model.layout import flat_size, layout
from proxytrain.plan.pack import MOST_SEQUENCES, Member, Pack, work
from proxytrain.plan.share import Segment
from proxytrain.plan.speed import GPU, Speeds

# One thread of a server core with AVX-512 and the CPU kernels: products at 95 GFLOP/s, and 1 ns for each
# float that forward writes; two busy one-thread workers slow each other down.
CPU_FLOPS, CPU_FLOAT_SECONDS, CPU_UPDATE_SECONDS, CPU_SHARING = 95e9, 1e-9, 1.3e-3, 1.25
# A GPU (an H200 was measured): shares of its peak and of its bandwidth; seconds a layer for an update to be launched,
# operation by operation or as one captured graph.
GPU_FLOPS, GPU_BANDWIDTH, GPU_LAYER_SECONDS = 0.65, 0.6, {False: 6e-3, True: 0.15e-3}
COMPILE_SECONDS = 45.0  # a program on a GPU, once a machine
CURVE_BYTES = 32  # a row of a curve
SEGMENT_BYTES, RUN_BYTES = 4096, 4096  # what is there besides


def seconds(pack: Pack, device: str, speeds: Speeds | None = None, compiled: bool = False) -> float:
    """Seconds of one worker for a pack, from what was measured or else estimated; members leave as they end."""
    recipe = pack.members[0].recipe
    tokens = sum(m.tokens for m in pack.members)
    measured = speeds.update(pack, compiled) if speeds else None
    if measured is not None:
        return tokens / (recipe.batch_tokens * len(pack.members)) * measured
    flops = accounting.flops_per_token(recipe.model, recipe.vocab)
    if isinstance(recipe.optimizer, Muon):
        own = accounting.orthogonal_flops(recipe.model, recipe.vocab, recipe.optimizer.iterations)
        flops += own / recipe.batch_tokens
    floats = accounting.activation_floats(recipe.model, recipe.vocab)
    updates = max((m.tokens for m in pack.members), default=0) / recipe.batch_tokens
    if device == "cuda":
        bf16, fp32, bandwidth = GPU
        peak = bf16 if recipe.precision == "bfloat16" else fp32
        if speeds:
            peak, bandwidth = speeds.flops, speeds.bandwidth
        moved = floats * (8 if recipe.precision == "bfloat16" else 16)
        token = flops / (GPU_FLOPS * peak) + moved / (GPU_BANDWIDTH * bandwidth)
        return updates * recipe.model.depth * GPU_LAYER_SECONDS[compiled] + tokens * token
    return updates * CPU_UPDATE_SECONDS + tokens * (flops / CPU_FLOPS + floats * CPU_FLOAT_SECONDS)


def flops_used(pack: Pack, took: float, speeds: Speeds) -> float:
    """Model FLOPs a second over the most that the worker can do, where a pack takes so many seconds."""
    return work(pack) / took / speeds.flops if took else 0.0


def bound(pack: Pack, speeds: Speeds) -> float:
    """Seconds below which a pack cannot be trained: its FLOPs at peak, or its bytes at full bandwidth (roofline)."""
    recipe = pack.members[0].recipe
    updates = sum(m.tokens for m in pack.members) / recipe.batch_tokens
    moved = updates * accounting.update_bytes(recipe.model, recipe.vocab, 1, recipe.batch_tokens, recipe.precision)
    return max(work(pack) / speeds.flops, moved / speeds.bandwidth)


def compiled(pack: Pack, train: Train, device: str, speeds: Speeds | None = None) -> bool:
    """Whether torch compiles a pack's updates: with `auto` on a GPU, where that saves more than it takes; on a CPU it
    saves nothing.
    """
    if train.compile != "auto":
        return train.compile == "on"
    if device == "cpu":
        return False
    if speeds and None not in (speeds.update(pack, False), speeds.update(pack, True)):
        saved = seconds(pack, device, speeds) - seconds(pack, device, speeds, True)
    else:
        estimates = replace(speeds, updates={}) if speeds else None
        saved = seconds(pack, device, estimates) - seconds(pack, device, estimates, compiled=True)
    return saved > COMPILE_SECONDS


def reference(precision: str, device: str, threads: int) -> bool:
    """Whether a worker is one whose results are promised to the bit (what torch compiles apart)."""
    return device == "cpu" and threads == 1 and precision == "float32"


def sharing(workers: int, device: str) -> float:
    """By how much busy workers of one machine slow each other down."""
    return CPU_SHARING if workers > 1 and device == "cpu" else 1.0


def elapsed(
    packs: Sequence[Pack],
    workers: int,
    device: str,
    left: Mapping[str, float] | None = None,
    alone: Callable[[Pack], float] | None = None,
) -> float:
    """Estimated seconds until all packs are trained by `workers` workers, waiting for states included.

    `alone` tells the seconds of a pack where they are known better than by `seconds`. `left` is the share of each
    pack, by id, that is still to be trained; without it nothing is trained yet.
    """
    free = [0.0] * workers
    ready: dict[tuple[str, int], float] = {}
    for pack in packs:
        took = (alone(pack) if alone else seconds(pack, device)) * sharing(workers, device)
        rest = took * left[pack.id] if left else took
        worker = min(range(workers), key=lambda i: free[i])
        start = max(free[worker], *(ready.get(k, 0.0) for k in pack.needs), 0.0)
        free[worker] = start + rest
        longest = max((m.tokens for m in pack.members), default=0) or 1
        for member in pack.members:
            for segment in member.segments:
                ready[segment.key] = max(start, start + rest - took * (1 - (segment.end - member.start) / longest))
    return max(free)


def native(train: Train, device: str, threads: int) -> bool:
    """Whether workers of this machine train with the CPU kernels, which take less time and memory."""
    serve = reference(train.precision, device, threads) and train.compile != "on"
    return serve and shutil.which(compiler()) is not None


def memory(pack: Pack, micro_batches: int, device: str, native: bool = False) -> int:
    """Estimated peak bytes of a pack whose updates are split into so many parts."""
    recipe = pack.members[0].recipe
    sequences = math.ceil(recipe.batch_tokens // recipe.model.context / micro_batches)
    tokens = sequences * recipe.model.context
    return _bytes(pack, tokens, device, native)


def disk(member: Member, keep_weights: str) -> int:
    """Return the bytes that a member leaves in the store.

    Curves, a state at the end of every open segment, weights and results of its runs.
    """
    return sum(_segment_bytes(s, keep_weights) for s in member.segments)


def checkpoints(packs: Sequence[Pack], workers: int) -> int:
    """Bytes of checkpoints while the largest packs are under way: two of each, and one that is being written."""
    sizes = (sum(20 if m.averaged else 12 for m in p.members) * _flat(p.members[0].segments[0]) for p in packs)
    return 3 * sum(sorted(sizes, reverse=True)[:workers])


def micro_batches(pack: Pack, budget: int, device: str, native: bool = False) -> int:
    """Into how many parts an update is split so that even one member fits into `budget` bytes.

    Raises
    ------
    ValueError
        If one sequence does not fit.
    """
    recipe = pack.members[0].recipe
    sequences = recipe.batch_tokens // recipe.model.context
    for parts in range(1, sequences + 1):
        tokens = math.ceil(sequences / parts) * recipe.model.context
        fits = _bytes(pack, tokens, device, native) <= budget
        if fits and len(pack.members) * tokens // recipe.model.context <= MOST_SEQUENCES:
            return parts
    raise ValueError(f"one sequence of {recipe.model.context} tokens at width {recipe.model.width}")


def _bytes(pack: Pack, tokens: int, device: str, native: bool) -> int:
    """Peak bytes of a pack whose members read so many tokens each at once."""
    recipe, averaged = pack.members[0].recipe, sum(m.averaged for m in pack.members)
    how = {"device": device, "precision": recipe.precision, "native": native}
    own = len(pack.members), tokens, recipe.optimizer.name, averaged
    return accounting.pack_bytes(recipe.model, recipe.vocab, *own, **how)  # type: ignore[arg-type]


def _flat(segment: Segment) -> int:
    return flat_size(layout(segment.recipe.model, segment.recipe.vocab))


def _segment_bytes(segment: Segment, keep_weights: str) -> int:
    updates = (segment.end - segment.start) // segment.recipe.batch_tokens
    state = 12 * _flat(segment) if segment.open or keep_weights == "all" else 0
    run = RUN_BYTES + (4 * _flat(segment) if keep_weights != "none" else 0) if segment.run_id else 0
    return updates * CURVE_BYTES + SEGMENT_BYTES + state + run
