"""What is computed beside the main answer: ranking, crossover, stability, collapse, critical batch."""
