"""The backend of encoders, which turn texts into embeddings or classes."""
