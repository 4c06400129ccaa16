"""Scheduling: the request queue, the batcher, workers, and the dispatcher that combines them."""
