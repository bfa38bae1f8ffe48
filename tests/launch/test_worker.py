"""Workers: one broken pack does not stop the others, and running again tries it again."""

from __future__ import annotations

import json
from pathlib import Path

from support import TINY, TINY_TEXT, proxytrain

from proxytrain.store import Store

SWEEP = [
    *TINY_TEXT,
    *TINY,
    "sweep.name=s",
    "sweep.grids=[{model.width:[16,24],tokens:[8192,16384]}]",
    "launch.workers=2",
]


def test_a_pack_that_fails_is_reported_and_the_others_go_on(tmp_path: Path, corpora: Path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "corpora").symlink_to(corpora)
    proxytrain("plan", *SWEEP, cwd=tmp_path)
    plan = json.loads((tmp_path / "runs/sweeps/s/plan.json").read_text())
    recipes = {name: r["model"]["width"] for name, r in plan["recipes"].items()}
    trunk = next(p for p in plan["packs"] if recipes[p["members"][0][0]["recipe"]] == 24)
    blocked = tmp_path / "runs" / "segments" / trunk["members"][0][0]["lineage"]
    blocked.parent.mkdir()
    blocked.write_text("a file where a folder must go")

    done = proxytrain("sweep", *SWEEP, cwd=tmp_path, check=1)
    assert "some runs failed" in done.stderr
    status = proxytrain("status", "sweep.name=s", cwd=tmp_path, check=1).stdout
    assert "2 done" in status
    assert "failed" in status
    assert "Error" in status
    assert "Traceback" not in status

    blocked.unlink()
    proxytrain("sweep", *SWEEP, cwd=tmp_path)
    assert "s: 4 done" in proxytrain("status", "sweep.name=s", cwd=tmp_path).stdout
    assert not list(Store(tmp_path / "runs").root.rglob("*.tmp"))
