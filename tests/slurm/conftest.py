"""A real SLURM of one node, started by start.sh for the tests that ask for it and stopped after the last of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# a site's own rules: no job is requeued, and none may wait for another
STRICT = """
function slurm_job_submit(job, parts, uid)
  if job.dependency ~= nil then slurm.log_user("dependencies are not allowed here") return slurm.ERROR end
  job.requeue = 0
  return slurm.SUCCESS
end
function slurm_job_modify(job, record, parts, uid) return slurm.SUCCESS end
"""


@contextmanager
def running(*settings: str, files: dict[str, str] | None = None) -> Iterator[Path]:
    """A SLURM with these lines in its slurm.conf and these files beside it; its configuration is the environment's."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short: a socket's path has at most 107 characters
    before = os.environ.get("SLURM_CONF")
    try:
        for name, text in (files or {}).items():
            (folder / name).write_text(text)
        started = subprocess.run([HERE / "start.sh", folder, *settings], capture_output=True, text=True)
        if started.returncode:
            why = f"SLURM cannot start: {started.stderr.strip()}"
            if os.environ.get("CI") == "true":
                pytest.fail(why)
            pytest.skip(why)
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        yield folder
    finally:
        if before is None:
            os.environ.pop("SLURM_CONF", None)
        else:
            os.environ["SLURM_CONF"] = before
        subprocess.run([HERE / "stop.sh", folder])
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A SLURM that requeues and preempts."""
    with running() as folder:
        yield folder


@pytest.fixture
def strict_cluster() -> Iterator[Path]:
    """A SLURM whose site refuses requeues and dependencies."""
    with running("JobRequeue=0", "JobSubmitPlugins=lua", files={"job_submit.lua": STRICT}) as folder:
        yield folder
