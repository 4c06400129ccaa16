"""MLX: the GPU."""

from triune.runtimes.mlx.runtime import Mlx

__all__ = ["Mlx"]
