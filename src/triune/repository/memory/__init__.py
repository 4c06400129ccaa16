"""The memory of loaded models: the charge of each, unloading for room, and loading ahead."""
