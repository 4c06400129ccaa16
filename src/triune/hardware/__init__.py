"""What a machine has: its compute units, and why one is absent."""
