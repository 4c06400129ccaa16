"""Speculative decoding: a step also computes guesses of the next tokens. Right guesses are accepted."""
