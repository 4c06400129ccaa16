"""The error for nodes that resemble a pattern but are not one."""


class NoMatchError(Exception):
    """The nodes resemble the pattern but differ from it; the message says how. Passes catch it and report it."""
