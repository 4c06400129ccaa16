"""The backend of transformers that generate text."""
