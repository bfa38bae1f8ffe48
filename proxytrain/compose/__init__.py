"""From words of the command line to one plain tree: `overrides` reads, `shell` shows what to type, `tree` composes."""

from proxytrain.compose.overrides import given, leaves, quoted, read, twice
from proxytrain.compose.shell import dashed
from proxytrain.compose.tree import compose, conf_dir, group_loader

__all__ = ["compose", "conf_dir", "dashed", "given", "group_loader", "leaves", "quoted", "read", "twice"]
