"""Text to tokens on disk, once, and tokens to one permuted stream per data seed. Costs numpy to import."""

from proxytrain.corpus.corpus import Corpus, Manifest, load
from proxytrain.corpus.prepare import prepare
from proxytrain.corpus.preview import preview
from proxytrain.corpus.stream import Stream

__all__ = ["Corpus", "Manifest", "Stream", "load", "prepare", "preview"]
