"""Ensemble configs: their steps, their data flow, and checks against the models of the steps."""
