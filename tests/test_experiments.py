"""Every experiment in `conf/experiment/` runs from end to end at a tiny size, with the fits that its head tells."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from support import TINY_TEXT, proxytrain

from proxytrain.config.compose import conf_dir

EXPERIMENTS = {p.stem: p.read_text() for p in sorted(conf_dir().glob("experiment/*.yaml"))}
TINY = [
    "model.context=32",
    "model.head_size=8",
    "model.depth=2",
    "scale.width=0.5",
    "scale.batch=0.25",
    "scale.tokens=0.01",
    "train.precision=float32",
    "train.eval_every=16384",
    "train.eval_tokens=1024",
    "fit.bootstraps=20",
    "launch.workers=2",
]
TINIER = {
    "bank_far": ["scale.tokens=0.001"],
    "gpu_hour": ["scale.width=0.25", "scale.tokens=0.0001", "scale.batch=0.0078125"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_at_a_tiny_size(name, tmp_path, corpora):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/corpora").symlink_to(corpora)
    words = [f"experiment={name}", *TINY, *TINIER.get(name, []), *TINY_TEXT]
    done = proxytrain("sweep", *words, cwd=tmp_path, check=None)
    assert done.returncode in (0, 1), done.stderr  # so small a sweep may end in a refusal
    assert "Traceback" not in done.stderr
    assert (tmp_path / f"runs/sweeps/{name}/report.html").exists()
    status = json.loads(proxytrain("status", f"sweep.name={name}", "--json", cwd=tmp_path, check=None).stdout)
    assert set(status[name]["counts"]) <= {"done", "diverged"}, status[name]["counts"]
    for told in re.findall(r"proxytrain (fit [^(\n]*)", EXPERIMENTS[name]):
        fit = shlex.split(told.partition("     ")[0])
        fit = proxytrain(*fit, *words[1:], cwd=tmp_path, check=None)
        assert fit.returncode in (0, 1), fit.stderr
        assert "Traceback" not in fit.stderr
