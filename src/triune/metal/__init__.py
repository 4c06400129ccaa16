"""Core ops computed with MLX: with Metal on Apple's GPUs, with CUDA on NVIDIA's. On a CPU the results are right, but
slow.
"""
