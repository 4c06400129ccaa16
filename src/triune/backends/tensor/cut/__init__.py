"""Models that are divided ("cut") into segments: the stretches of a plan, their compilation on units, and whether the
cut model is faster.
"""
