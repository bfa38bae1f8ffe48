"""The loop over one pack, evaluation, and the state on disk. The only room beside the model that imports torch."""
