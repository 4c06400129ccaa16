"""What the text of a model consists of beside the answer: calls of tools, and reasoning."""
