"""A model's folder, read: its config, completed and checked; its versions; what its files looked like."""
