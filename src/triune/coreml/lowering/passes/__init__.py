"""Passes over a program before it is saved: a few of coremltools' passes, and Triune's own."""
