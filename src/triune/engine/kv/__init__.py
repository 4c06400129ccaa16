"""The paged cache of keys and values: which block belongs to which sequence, and which blocks can be shared."""
