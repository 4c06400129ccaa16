"""Backends build servables from a model's files: one backend for each kind of servable, chosen by the config."""
