"""The backend of encoders of texts: embeddings and classes."""
