"""Hardware detection: compute units, and why one is absent."""
