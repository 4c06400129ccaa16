"""A model that is cut into segments, each compiled for a unit: one executable, and the runner of its batches."""
