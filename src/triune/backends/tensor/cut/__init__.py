"""Models that are cut into segments: the stretches of a plan, their compilation on units, and whether the cut is
faster.
"""
