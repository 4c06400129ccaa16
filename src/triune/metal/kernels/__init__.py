"""Triune's own kernels, in CUDA. There are none for Metal yet, where MLX's operations compute the same."""
