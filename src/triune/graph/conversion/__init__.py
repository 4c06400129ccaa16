"""What every conversion of a graph shares: what a user may say, how refusals are told, how results are checked."""
