"""proxytrain: predict the loss of a large language model from a grid of tiny ones, with an honest interval."""
