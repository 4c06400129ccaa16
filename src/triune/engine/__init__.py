"""The transformer engine."""
