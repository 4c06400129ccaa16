"""Read API keys from the command line, the environment and a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from triune.core.errors import InvalidArgumentError

VARIABLE: Final = "TRIUNE_API_KEY"
"""The environment variable with API keys, separated by spaces."""


def read_keys(given: Sequence[str], file: Path | None, environment: Mapping[str, str]) -> list[str]:
    """Collect the keys of the command line, of the environment and of a file, in this order.

    The file has one key in each line; empty lines and lines that begin with # are skipped.

    Raises:
        InvalidArgumentError: the file cannot be read; or the file or the environment variable exists but contains no
            key, so that the server would be open although its operator wanted keys.
    """
    keys = [*given, *environment.get(VARIABLE, "").split()]
    if VARIABLE in environment and not environment[VARIABLE].strip():
        raise InvalidArgumentError(f"{VARIABLE} is set and has no key; give it one, or unset it")
    if file is None:
        return keys
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidArgumentError(f"cannot read --api-key-file '{file}': {reason}") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise InvalidArgumentError(f"--api-key-file '{file}' has no key; write one a line, or leave the option out")
    return [*keys, *found]
