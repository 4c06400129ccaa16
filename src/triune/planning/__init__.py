"""Plans: which unit should compute which part of a model, and the predicted times and joules."""
