"""Turn tokens into the text of an answer, piece by piece."""
