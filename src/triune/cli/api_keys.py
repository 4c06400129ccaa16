"""Read API keys from the command line, the environment and a file."""

from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Final

from triune.core.errors import InvalidArgumentError

VARIABLE: Final = "TRIUNE_API_KEY"
"""The environment variable with API keys, separated by spaces."""


def take_keys(given: Sequence[str], file: Path | None, environment: MutableMapping[str, str]) -> list[str]:
    """Collect the keys of the command line, of the environment and of a file, in this order.

    The variable is removed from the environment: the processes that run models would inherit it.

    The file has one key in each line; empty lines and lines that begin with # are skipped.

    Raises:
        InvalidArgumentError: the file cannot be read; or the file or the environment variable exists but contains no
            key, so that the server would be open although its operator wanted keys.
    """
    variable = environment.pop(VARIABLE, None)
    keys = [*given, *(variable or "").split()]
    if variable is not None and not variable.strip():
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
