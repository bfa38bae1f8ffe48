"""The GPT: layers, layout of its weights, parametrization, counts of parameters and FLOPs."""
