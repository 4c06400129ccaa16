"""The machine's heat, as its sensors and its operating system report it."""
