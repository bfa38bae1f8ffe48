"""What `proxytrain VERB` does, a function a verb; importing this enters them in VERBS, in the order of the help."""

from proxytrain.verbs import jobs  # isort: skip
from proxytrain.verbs import cluster  # isort: skip
from proxytrain.verbs import housekeeping, lab, laws, mirroring
from proxytrain.verbs.verb import VERBS

__all__ = ["VERBS", "cluster", "housekeeping", "jobs", "lab", "laws", "mirroring"]
