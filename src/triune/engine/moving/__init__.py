"""Move running sequences from one engine to another: within a process, or as bytes between machines."""
