"""Laws of whole loss curves: how the learning-rate schedule moves the loss, over training and over model size."""
