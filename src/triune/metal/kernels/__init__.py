"""Kernels of our own, in CUDA. Metal has none yet: there MLX's operations compute the same."""
