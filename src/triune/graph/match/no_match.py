"""The error for nodes that resemble a pattern but differ from it in a detail."""


class NoMatchError(Exception):
    """The nodes resemble the pattern but differ from it; the message says how. Passes catch it and report it."""
