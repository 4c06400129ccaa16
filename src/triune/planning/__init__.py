"""Plans: which unit should compute which part of a model, how long it takes and how many joules. All predictions."""
