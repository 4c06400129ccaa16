"""One adapter a vendor library: each loads a model file on a unit."""
