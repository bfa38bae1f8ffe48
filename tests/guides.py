"""The commands that the README and the guides tell, as a reader would copy them; `tests/test_guides.py` runs them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:proxytrain|python|pip|scripts/\w+\.sh)(?: [^`]*)?)`")
NO_COMMAND = {"proxytrain", "python", "pip", "proxytrain …", "proxytrain VERB"}


def blocks(path: Path, language: str) -> list[str]:
    """What stands between fences of that language."""
    return [body for kind, body in FENCED.findall(path.read_text()) if kind == language]


def commands(path: Path) -> list[str]:
    """Every command of a guide, in its order: of its blocks of shell, then those in running text; comments left out."""
    lines = "".join(blocks(path, "bash")).replace("\\\n", " ").splitlines()
    lines += INLINE.findall(FENCED.sub("", path.read_text()))
    found = (re.sub(r"\s+#.*", "", " ".join(line.split())) for line in lines)
    return list(dict.fromkeys(line for line in found if line not in NO_COMMAND))


def told(start: str) -> list[list[str]]:
    """Arguments of every command of ours that begins so, after `proxytrain`."""
    every = dict.fromkeys(line for path in GUIDES for line in commands(path) if line.startswith(f"proxytrain {start}"))
    assert every, f"no guide tells `proxytrain {start}`"
    return [shlex.split(line)[1:] for line in every]
