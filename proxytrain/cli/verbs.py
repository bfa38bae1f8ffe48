"""What `proxytrain VERB` does, a function a verb; importing this enters them in VERBS, in the order of the help."""

from proxytrain.cli import jobs  # isort: skip
from proxytrain.cli import cluster  # isort: skip
from proxytrain.cli import housekeeping, lab, laws, mirroring
from proxytrain.cli.verb import VERBS

__all__ = ["VERBS", "cluster", "housekeeping", "jobs", "lab", "laws", "mirroring"]
