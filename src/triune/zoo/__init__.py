"""Models with known weights: where the weights come from, and how they become a model repository."""
