"""Panics of libraries that are written in Rust.

A panic reaches Python as an exception that is not an Exception. So a thread that catches only Exception would end, and
its callers would wait for ever. Threads that call such libraries therefore catch BaseException.
"""


def is_panic(error: BaseException) -> bool:
    """Whether an exception is a panic of a library that is bound with PyO3."""
    return type(error).__name__ == "PanicException"
