"""Energy meters of the machine, and the accountant that divides the energy among models and requests."""
