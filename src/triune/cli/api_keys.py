"""API keys: from the command line, the environment and a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from triune.core.errors import InvalidArgumentError

VARIABLE: Final = "TRIUNE_API_KEY"
"""Of the environment: one key or more, with spaces between them."""


def read_keys(given: Sequence[str], file: Path | None, environment: Mapping[str, str]) -> list[str]:
    """The keys that were given, those of the environment, then those of a file.

    A file has one key a line; empty lines and those that begin with # are skipped.

    Raises:
        InvalidArgumentError: the file cannot be read; or it, or the variable, has no key, and would restrict nobody.
    """
    keys = [*given, *environment.get(VARIABLE, "").split()]
    if VARIABLE in environment and not environment[VARIABLE].strip():
        raise InvalidArgumentError(f"{VARIABLE} is set and has no key; give it one, or unset it")
    if file is None:
        return keys
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidArgumentError(f"cannot read --api-key-file '{file}': {reason}") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise InvalidArgumentError(f"--api-key-file '{file}' has no key; write one a line, or leave the option out")
    return [*keys, *found]
