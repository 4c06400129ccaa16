"""Runs models on the GPU with MLX."""

from triune.runtimes.mlx.runtime import Mlx

__all__ = ["Mlx"]
