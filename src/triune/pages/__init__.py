"""Reports as pages of HTML: what the pages of plans, simulations, tunings, optimizations and compressions share."""
