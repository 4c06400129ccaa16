"""Schedules on a chip that is not here: the scheduler's own code on a virtual clock, with predicted times."""
