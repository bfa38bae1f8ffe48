"""From a file or DataFrame to checked runs: columns, settings, duplicates, checkpoints, units."""
