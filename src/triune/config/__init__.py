"""Read a model's folder: its config, completed and checked; its versions; and fingerprints of its files."""
