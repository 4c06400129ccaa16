"""Speculative decoding: a step also computes guesses of the tokens that follow, and as many as are right are kept."""
