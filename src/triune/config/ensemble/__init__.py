"""Ensembles: models that are made of others. What their configs say, and whether it fits the models they name."""
