"""What this machine offers: which device, how many workers, how much memory each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from proxytrain.config import Config
from proxytrain.errors import RequestError


@dataclass(frozen=True)
class Machine:
    """Where workers will run."""

    device: str  # cpu | cuda
    workers: int
    threads: int
    memory: int  # bytes a worker may use


def machine(config: Config) -> Machine:
    """Device, workers and memory by the configuration and by what is here. Imports torch.

    Raises
    ------
    RequestError
        If the device asked for is unknown or not here.
    """
    import torch

    device = config.train.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise RequestError(f"train.device={device}: allowed are auto, cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise RequestError(
            f"train.device=cuda: torch {torch.__version__} sees no GPU; set train.device=cpu, or install a CUDA build"
        )
    threads = config.launch.threads
    if device == "cuda":
        workers = config.launch.workers or torch.cuda.device_count()
        memory = int(0.9 * torch.cuda.mem_get_info()[0])
        each = memory // -(-workers // torch.cuda.device_count())
    else:
        workers = config.launch.workers or max(1, len(os.sched_getaffinity(0)) // threads)
        memory = int(0.8 * min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _container_memory()))
        each = memory // workers
    return Machine(device, workers, threads, config.train.memory or each)


def _container_memory() -> float:
    """Bytes that this container or job may use (cgroup v2); infinite where nothing limits it."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return float("inf")
    return float(text) if text.isdigit() else float("inf")
