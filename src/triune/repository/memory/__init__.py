"""The memory of loaded models: what each costs, which are unloaded for room, and which are loaded ahead."""
