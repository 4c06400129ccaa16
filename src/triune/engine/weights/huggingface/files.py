"""Read the files of a directory. Links are followed, since the hub's cache consists of links."""

import json
from pathlib import Path
from typing import Final, cast

from triune.core.errors import InvalidArgumentError
from triune.core.files import read_file

_MAX_JSON_BYTES: Final = 64 << 20


def read_json(path: Path) -> dict[str, object] | None:
    """Read a JSON object from a file; None if there is no such file.

    Raises:
        InvalidArgumentError: the file cannot be read, is too large, or is not a JSON object.
    """
    text = read_text(path)
    if text is None:
        return None
    try:
        value = cast("object", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{path}: it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"{path}: it holds a {type(value).__name__}, not a JSON object")
    return cast("dict[str, object]", value)


def read_text(path: Path) -> str | None:
    """Read a UTF-8 text file; None if there is no such file. Raises the errors of `read_json`."""
    try:
        return read_file(path, _MAX_JSON_BYTES).decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{path}: it is not UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise InvalidArgumentError(f"{path}: cannot be read: {error.strerror or error}") from error
