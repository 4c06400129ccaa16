"""Models with known weights: where they come from, and how they become a repository."""
