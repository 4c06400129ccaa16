"""Panics of libraries that are written in Rust.

A panic reaches Python as an exception that does not derive from Exception. So a thread that catches only Exception
would end, and its callers would wait forever. Threads that call such libraries therefore catch BaseException.
"""


def is_panic(error: BaseException) -> bool:
    """Whether an exception is a panic of a Rust library with PyO3 bindings."""
    return type(error).__name__ == "PanicException"
