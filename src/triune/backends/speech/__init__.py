"""The backend of models that transcribe speech."""
