"""A decoder's weights in fewer bits: found, rounded, compared on text, and written as a checkpoint."""
