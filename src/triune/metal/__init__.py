"""Core ops computed with MLX: by Metal on Apple's GPUs, by CUDA on NVIDIA's, else on the CPU, for answers only."""
