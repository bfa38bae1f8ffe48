"""One formula each: reference, CPU (C++), GPU (Triton)."""
