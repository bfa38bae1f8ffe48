"""What is published works elsewhere: an sdist, the wheel that is built from it, the README's two commands."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from support import TINY, TINY_TEXT

import proxytrain

PROJECT = Path(proxytrain.__file__).parents[1]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The unpacked sdist; beside it the wheel that was built from it, installed into its .venv as `setup.sh` would.

    The environment is empty but for what the wheel needs, which it sees in the one that runs the tests.
    """
    folder = tmp_path_factory.mktemp("published")
    (sdist,) = SdistBuilder(str(PROJECT)).build(directory=str(folder), versions=["standard"])
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)
    checkout = folder / Path(sdist).name.removesuffix(".tar.gz")
    (wheel,) = WheelBuilder(str(checkout)).build(directory=str(folder), versions=["standard"])
    venv.create(checkout / ".venv", symlinks=True)
    python = checkout / ".venv/bin/python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    (site,) = (checkout / ".venv").glob("lib/*/site-packages")
    (site / "needed.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")) + "\n")
    wanted = b"".join((checkout / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    for extras in ("", "test"):
        (checkout / f".venv/installed-{extras}-{hashlib.sha256(wanted).hexdigest()[:16]}").touch()
    return checkout


def shell(command: str, cwd: Path) -> str:
    """What a command says to a reader who has the environment of the tests neither in PATH nor in PYTHONPATH."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | {"PATH": os.defpath + ":/usr/bin:/bin"}
    done = subprocess.run(["bash", "-ec", command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_and_the_sdist_hold_what_they_must(checkout):
    (wheel,) = checkout.parent.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        about = {n.rpartition("/")[2]: archive.read(n).decode() for n in names if ".dist-info/" in n}
    conf = {f"proxytrain/conf/{p.relative_to(PROJECT / 'conf')}" for p in (PROJECT / "conf").rglob("*.yaml")}
    modules = {str(p.relative_to(PROJECT)) for p in (PROJECT / "proxytrain").rglob("*.py")}
    assert conf | modules | {"proxytrain/py.typed"} <= names
    assert not [n for n in names if not n.startswith("proxytrain")]
    metadata = message_from_string(about["METADATA"])
    assert (metadata["Name"], metadata["License-Expression"]) == ("proxytrain", "Apache-2.0")
    assert metadata["Requires-Python"] == ">=3.10"
    assert "Apache License" in about["LICENSE"]
    assert "proxytrain = proxytrain.__main__:main" in about["entry_points.txt"]
    version = metadata["Version"]
    assert f"\nversion: {version}\n" in (PROJECT / "CITATION.cff").read_text()
    for name in (
        "LICENSE",
        "README.md",
        "FINDINGS.md",
        "CITATION.cff",
        "Dockerfile",
        "constraints.txt",
        "docs/data.md",
    ):
        assert (checkout / name).read_bytes() == (PROJECT / name).read_bytes()
    assert (checkout / "tests/test_packaging.py").exists()


def test_it_plans_and_fits_from_any_folder_without_torch_and_runs_a_small_sweep(checkout, store):
    elsewhere, here = store.parent, [*TINY_TEXT, *TINY]
    losses = [f"{n},{d},{1.8 + 480 * n**-0.35 + 2100 * d**-0.37}" for n in (1e7, 1e8, 1e9) for d in (1e9, 1e10, 1e11)]
    auto = [] if Path("/dev/nvidiactl").exists() else ["train.device=auto"]  # no driver: nothing to ask torch for
    (elsewhere / "l.csv").write_text("\n".join(["params,tokens,loss", *losses]))
    script = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        assert name != 'torch'\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from proxytrain.cli.main import main\n"
        "from proxytrain.config.compose import conf_dir\n"
        f"assert main(['plan', *{here!r}, *{auto!r}]) == 0\n"
        "assert main(['fit', 'table=l.csv', 'fit.law=chinchilla', 'fit.bootstraps=20']) == 0\n"
        "print(conf_dir())"
    )
    (elsewhere / "script.py").write_text(script)
    command = f"{checkout}/.venv/bin/python script.py; {checkout}/.venv/bin/proxytrain --version"
    *_, conf, version = shell(command, elsewhere).split()
    assert conf.startswith(str(checkout / ".venv"))
    assert version == proxytrain_version(checkout)
    words = " ".join(f"'{w}'" for w in here)
    said = shell(f"{checkout}/.venv/bin/proxytrain sweep {words}", elsewhere)
    assert "1 runs done" in said


def test_the_two_commands_of_the_readme_run_on_a_fresh_copy(checkout, corpora):
    (checkout / "runs").mkdir()
    (checkout / "runs/corpora").symlink_to(corpora)
    grid = ["sweep.grids=[{tokens:[4096,8192]}]", "sweep.target={tokens:12288}", "launch.workers=1"]
    words = " ".join(f"'{w}'" for w in [*TINY_TEXT, *TINY, *grid])
    refused = "too few lengths for a law is an answer too"  # exit code 1
    assert shell(f"scripts/quickstart.sh {words} || echo {refused}", checkout).strip().endswith(refused)
    said = shell(f". .venv/bin/activate && proxytrain verify experiment=quickstart {words} || true", checkout)
    assert "report: runs/sweeps/quickstart/report.html" in said
    assert "pytest" in shell("scripts/test.sh --version 2>&1", checkout)


def proxytrain_version(checkout: Path) -> str:
    (line,) = (x for x in (checkout / "pyproject.toml").read_text().splitlines() if x.startswith("version = "))
    return line.split('"')[1]
