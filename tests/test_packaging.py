"""The wheel carries `conf/` and works from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

import proxytrain


def test_the_wheel_finds_its_configuration_from_any_folder(tmp_path):
    project = Path(proxytrain.__file__).parents[1]
    next(WheelBuilder(str(project)).build(directory=str(tmp_path)))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    names = {str(p.relative_to(project / "conf")) for p in (project / "conf").rglob("*.yaml")}
    inside = {str(p.relative_to(tmp_path / "site/proxytrain/conf")) for p in (tmp_path / "site").rglob("*.yaml")}
    assert names == inside
    assert (tmp_path / "site/proxytrain/py.typed").exists()

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def python(*arguments: str) -> str:
        env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        return subprocess.check_output([sys.executable, *arguments], cwd=elsewhere, env=env, text=True)

    assert "name: quickstart" in python("-m", "proxytrain", "sweep", "experiment=quickstart", "--cfg", "job")
    found = python("-c", "from proxytrain.compose import conf_dir; print(conf_dir())").strip()
    assert found == str(tmp_path / "site" / "proxytrain" / "conf")
