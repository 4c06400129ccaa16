"""Reading a model's folder: its config, completed and checked; its versions; fingerprints of its files."""
