"""Simulates schedules on another chip: the scheduler's own code runs on a virtual clock, with predicted times."""
