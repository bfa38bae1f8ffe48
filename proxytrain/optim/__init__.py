"""Optimizers over the flat buffers of a pack."""
