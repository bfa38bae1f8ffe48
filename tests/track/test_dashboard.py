"""The view of a mirrored sweep, as W&B would keep it."""

from __future__ import annotations

import json

import pytest
from guides import told
from support import proxytrain


def test_the_view_of_a_sweep_is_saved_once(done, sync, server):
    pytest.importorskip("wandb_workspaces")
    cwd = done.root.parent
    (line,) = told("track dashboard")
    line.append("sweep.name=s")
    assert "`proxytrain track sync` first" in proxytrain(*line, cwd=cwd, check=2).stderr
    sync(done)
    first = proxytrain(*line, cwd=cwd).stdout
    assert proxytrain(*line, cwd=cwd).stdout == first
    (view,) = server.views.values()
    spec = json.dumps(json.loads(view["spec"]))
    logged = {key for run in server.runs.values() for line in run.history for key in line}
    for key in ("tokens", "flops", "val/loss", "train/loss", "train/lr"):
        assert f'"{key}"' in spec
        assert key in logged
    for key in ("summary:final_loss", "config:lr.value", "model.value.width", "schedule.value.name", "prediction.loss"):
        assert key in spec
    assert '"value": "s"' in spec  # of the filter by group
