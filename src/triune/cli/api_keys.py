"""API keys, from the command line and from a file."""

from collections.abc import Sequence
from pathlib import Path

from triune.core.errors import InvalidArgumentError


def read_keys(given: Sequence[str], file: Path | None) -> list[str]:
    """The keys that were given, then those of a file: one a line; empty lines and those that begin with # are skipped.

    Raises:
        InvalidArgumentError: the file cannot be read, or there is no key in it: it was to restrict the server.
    """
    if file is None:
        return list(given)
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidArgumentError(f"cannot read --api-key-file '{file}': {reason}") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise InvalidArgumentError(f"--api-key-file '{file}' has no key; write one a line, or leave the option out")
    return [*given, *found]
