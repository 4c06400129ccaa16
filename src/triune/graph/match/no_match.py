"""Why something that resembles a pattern is not one."""


class NoMatchError(Exception):
    """The nodes resemble the pattern but differ from it; the message says how. Passes catch it and report it."""
