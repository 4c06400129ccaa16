"""Structured output: answers that match a JSON schema, a regular expression, a grammar or a choice of texts."""
