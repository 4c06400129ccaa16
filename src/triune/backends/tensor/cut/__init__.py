"""Models that are cut: the stretches of a plan, their compilation on units, and whether the cut pays."""
