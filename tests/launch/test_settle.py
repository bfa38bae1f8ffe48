"""What a process that trains settles, seen from outside: the pages that the kernel has to hand out."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from proxytrain.launch.settle import settle

settle(1)

def updates(count):
    for _ in range(count):
        kept = [torch.full((n << 18,), 1.0) for n in (1, 3, 64, 2)]  # 1, 3, 64 and 2 MB
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

print(-updates(5) + updates(5), torch.get_num_threads(), float(torch.tensor(1e-40) * 1.0))
"""


def faults(**environment: str) -> int:
    """Pages handed out in five rounds of blocks that come and go, 17,920 of them in each."""
    left = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", FAULTS], env=left | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, threads, tiny = done.stdout.split()
    assert (threads, tiny) == ("1", "0.0")
    return int(count)


@pytest.mark.skipif(not hasattr(os, "confstr") or "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="glibc's")
def test_memory_that_an_update_frees_is_there_for_the_next_unless_the_user_says_otherwise():
    assert faults() < 2000
    assert faults(MALLOC_MMAP_THRESHOLD_="131072") > 80_000
