"""The steps of normalization, one a file. Each takes a model and gives one that computes the same."""
