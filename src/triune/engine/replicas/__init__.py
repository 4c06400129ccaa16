"""One text model on several units: which unit computes which answer, and answers that move from one to another."""
