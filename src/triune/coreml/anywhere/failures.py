"""Translate errors for coremltools, whose own module raises only RuntimeError."""

from collections.abc import Generator
from contextlib import contextmanager

from triune.core.errors import TriuneError


@contextmanager
def as_runtime_errors(beginning: str = "") -> Generator[None]:
    """A context that raises Triune's errors as the RuntimeError that coremltools' own module raises. `beginning` is put
    before the error's message.
    """
    try:
        yield
    except TriuneError as error:
        raise RuntimeError(f"{beginning}{error}") from error
