"""The backend of models that read speech."""
