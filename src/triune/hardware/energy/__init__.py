"""Energy meters of the machine, and the accountant that divides what they count among models and requests."""
