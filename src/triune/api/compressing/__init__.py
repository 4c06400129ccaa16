"""`triune.compress`: models in fewer bits, compared with their sources."""
