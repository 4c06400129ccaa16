"""A model that is divided into segments, each compiled for a unit: one executable, and the runner of its batches."""
