"""The directory that holds corpora, segments, runs and sweeps."""
