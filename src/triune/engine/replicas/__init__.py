"""One text model on several units: chooses the unit of each answer, and moves answers between units."""
