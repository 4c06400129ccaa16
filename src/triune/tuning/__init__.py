"""Tuning of a served model: configurations are tried on this machine, and the best one is found."""
