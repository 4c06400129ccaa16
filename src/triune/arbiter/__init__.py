"""Decides which models may use the machine's hardware when the batches of several models compete for it."""
