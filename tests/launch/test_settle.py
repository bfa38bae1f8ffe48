"""What a process that trains settles, seen from outside: the pages that the kernel has to hand out."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from proxytrain.launch.settle import give_back, settle

settle(1)

def updates(count):
    for _ in range(count):
        kept = [torch.full((n << 18,), 1.0) for n in (1, 3, 64, 2)]  # 1, 3, 64 and 2 MB
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = updates(5)
kept = updates(5)
give_back()
print(kept - before, updates(1) - kept, torch.get_num_threads(), float(torch.tensor(1e-40) * 1.0))
"""


def faults(**environment: str) -> tuple[int, int]:
    """Pages handed out in five rounds of blocks that come and go, 17,920 of them in each; and, once all was given back,
    in one more.
    """
    left = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", FAULTS], env=left | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    five, one, threads, tiny = done.stdout.split()
    assert (threads, tiny) == ("1", "0.0")
    return int(five), int(one)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's")
def test_memory_that_an_update_frees_is_there_for_the_next_until_it_is_given_back_unless_the_user_says_otherwise():
    five, one = min(faults() for _ in range(3))  # the kernel may take pages back meanwhile
    assert five < 2000
    assert one > 10_000
    assert faults(MALLOC_MMAP_THRESHOLD_="131072")[0] > 80_000
