"""Divide the text of a model into its parts: the answer, tool calls and reasoning."""
