"""What a process that trains settles before its first update: threads, tiny numbers, and what its heap keeps."""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
USERS = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


def settle(threads: int) -> None:
    """So many threads; denormals are zero; memory that an update frees is there for the next."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    keep_heap()


def keep_heap() -> None:
    """Freed memory stays in the heap. The kernel would take back every large block, and clear it page by page for the
    next update: up to a fifth of the time (FINDINGS.md). Where the user has set such a limit, it stands; without glibc
    there is nothing to set.
    """
    if any(name in os.environ for name in USERS):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def give_back() -> None:
    """What the heap has kept is the kernel's again: between packs, above all after one that memory was short for."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
