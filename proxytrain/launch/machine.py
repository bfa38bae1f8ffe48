"""What workers will have: which device, how many of them, how much memory each; here or on a cluster."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from proxytrain.config.schema import Config, Local, Slurm, Train
from proxytrain.errors import RequestError
from proxytrain.kernels.cache import compiler


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where workers will run."""

    device: str  # cpu | cuda
    workers: int
    threads: int
    memory: int  # bytes a worker may use
    name: str = ""  # of the processor or GPU, with the threads of a worker; empty where it is not known yet
    gpus: tuple[int, ...] = ()  # which of those that are visible; workers take them in turn


CLUSTER_MEMORY = {"cpu": 2_000_000_000, "cuda": 14_000_000_000}  # bytes a worker on a cluster may use, unless told


def machine(config: Config) -> Machine:
    """Device, workers and memory by the configuration and by what is here, or is asked of the cluster.

    Raises
    ------
    RequestError
        If the device asked for is unknown or not there.
    """
    if isinstance(config.launch, Slurm):
        return _cluster(config.train, config.launch)
    kind = device(config)
    threads = config.launch.threads
    check(config.train, kind)
    gpus = _gpus(config.launch, _count(kind))
    if gpus:
        import torch

        workers = config.launch.workers or len(gpus)
        memory = int(0.9 * min(torch.cuda.mem_get_info(i)[0] for i in gpus))
        each = memory // -(-workers // len(gpus))
    else:
        workers = config.launch.workers or max(1, len(os.sched_getaffinity(0)) // threads)
        memory = int(0.8 * min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _container_memory()))
        each = memory // workers
    return Machine(
        device=kind,
        workers=workers,
        threads=threads,
        memory=config.train.memory or each,
        name=name(kind, threads),
        gpus=gpus,
    )


def device(config: Config) -> str:
    """cpu or cuda, by the configuration and by what is here. Imports torch (seconds) only where it may be cuda.

    Raises
    ------
    RequestError
        If the device asked for is unknown or not here.
    """
    asked = _known(config.train.device)
    if asked == "cpu" or (asked == "auto" and not _driver()):
        return "cpu"
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.cuda.is_available():
        raise RequestError(
            f"train.device=cuda: torch {torch.__version__} sees no GPU; set train.device=cpu, or install a CUDA build"
        )
    return asked


def _driver() -> bool:
    """Whether a GPU's driver is installed (NVIDIA's library, or AMD's device)."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def name(kind: str, threads: int) -> str:
    """What figures of speed are kept under. Imports torch for a GPU."""
    if kind == "cuda":
        import torch

        return torch.cuda.get_device_name()
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{processor}, {threads} thread{'s' if threads > 1 else ''}"


def check(train: Train, kind: str) -> None:
    """Whether this machine can do what `train` asks. Imports torch for a GPU.

    Raises
    ------
    RequestError
        If it cannot compile, or its GPU has no bfloat16.
    """
    if train.precision == "bfloat16" and kind == "cuda":
        import torch

        if not torch.cuda.is_bf16_supported(including_emulation=False):
            raise RequestError(
                f"train.precision=bfloat16: {torch.cuda.get_device_name()} does not have it; "
                "set train.precision=float32"
            )
    if train.compile == "on" and (why := no_compiler(kind)):
        raise RequestError(f"train.compile=on: {why}; install it, or set train.compile=auto")


def no_compiler(kind: str) -> str | None:
    """What is missing here for compiled programs; None if nothing is."""
    name = compiler() if kind == "cpu" else os.environ.get("CC") or "gcc"
    if shutil.which(name) is None:
        return f"it needs a C++ compiler, and there is no {name} on the PATH"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return f"it needs Python's headers, and there is no {sysconfig.get_path('include')}/Python.h"
    if kind == "cuda" and importlib.util.find_spec("triton") is None:
        return "it needs the package triton"
    return None


def _count(kind: str) -> int:
    """Number of GPUs that are visible; of a CPU none, without torch."""
    if kind == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def _gpus(launch: Local, count: int) -> tuple[int, ...]:
    """The GPUs that workers use, of `count` that are here; none where they train on a CPU.

    Raises
    ------
    RequestError
        If one that was named does not exist.
    """
    if launch.devices == ["auto"]:
        return tuple(range(count))
    asked = f"launch.devices=[{','.join(launch.devices)}]"
    if count == 0:
        raise RequestError(f"{asked}: training is on the CPU, which has no such devices; set launch.devices=auto")
    if not all(d.isdigit() and int(d) < count for d in launch.devices) or not launch.devices:
        raise RequestError(f"{asked}: allowed are auto, or some of {', '.join(map(str, range(count)))}")
    return tuple(dict.fromkeys(int(d) for d in launch.devices))


def _cluster(train: Train, launch: Slurm) -> Machine:
    """What the tasks of an array will have; nothing of that need be here."""
    asked = _known(train.device)
    if asked == "cuda" and launch.gpus is None:
        raise RequestError("launch.gpus=null: train.device=cuda needs a GPU for each worker, launch.gpus=1 or TYPE:1")
    kind = asked if asked != "auto" else "cuda" if launch.gpus else "cpu"
    workers = min(launch.workers, launch.max_parallel or launch.workers)
    memory = train.memory or CLUSTER_MEMORY[kind]
    return Machine(device=kind, workers=workers, threads=launch.threads, memory=memory)


def _known(device: str) -> str:
    if device not in ("auto", "cpu", "cuda"):
        raise RequestError(f"train.device={device}: allowed are auto, cpu, cuda")
    return device


def _container_memory() -> float:
    """Bytes that this container or job may use (cgroup v2); infinite where nothing limits it."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return float("inf")
    return float(text) if text.isdigit() else float("inf")
