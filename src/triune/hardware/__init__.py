"""Detects this machine's compute units, and says why a unit is absent."""
