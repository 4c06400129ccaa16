"""Choosing the next token of each sequence from the decoder's logits."""
