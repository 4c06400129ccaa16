"""Panics of libraries that are written in Rust.

A panic reaches Python as an exception that is not an Exception. So a thread that catches every Exception ends by it,
and all who wait for that thread wait for ever: threads that call such libraries catch BaseException.
"""


def is_panic(error: BaseException) -> bool:
    """Whether an exception is a panic of a library that is bound with PyO3."""
    return type(error).__name__ == "PanicException"
