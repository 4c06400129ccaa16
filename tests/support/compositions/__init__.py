"""Small random programs of several operators, and what their answers may be."""
