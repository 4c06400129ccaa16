"""Queues, batchers, workers, and the dispatcher that joins them."""
