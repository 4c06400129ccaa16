"""Small random programs of several operators, and the allowed errors of their outputs."""
