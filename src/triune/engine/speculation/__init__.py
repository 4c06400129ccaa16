"""Speculative decoding: a step also computes guesses of the tokens that follow. Right guesses are kept."""
