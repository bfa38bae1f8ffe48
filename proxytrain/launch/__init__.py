"""Workers: one that takes packs from a plan until none is left, and how many of them are started."""
