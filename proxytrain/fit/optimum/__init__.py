"""Optimal learning rate and batch: tables of runs over rates (and batches) in, laws of their optimum out."""
