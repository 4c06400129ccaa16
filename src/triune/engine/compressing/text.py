"""Text for calibration and comparison: the user's text, or Python's language reference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.core.files import read_file

WINDOW: Final = 512
"""The number of tokens of a text that is read at once; fewer for models with a shorter context."""

_MOST_CALIBRATION: Final = 8
_MOST_COMPARISON: Final = 4
"""The largest numbers of windows for calibration (`_MOST_CALIBRATION`) and for comparison (`_MOST_COMPARISON`). More
windows hardly change the figures, and each is computed many times.
"""

_MOST_BYTES: Final = 64 << 20
_FEWEST_TOKENS: Final = 64
_HELD_OUT: Final = 3
"""If there are 3 windows or more, every third is not used for calibration, and only these are used for the
comparison.
"""


@dataclass(frozen=True, slots=True)
class Texts:
    """Windows of tokens.

    Attributes:
        calibration: the windows for calibration.
        comparison: the windows on which source and result are compared.
        origin: a description of their source.
        is_built_in: whether the text is the built-in one, not the user's.
    """

    calibration: Sequence[Sequence[int]]
    comparison: Sequence[Sequence[int]]
    origin: str
    is_built_in: bool


def read_texts(path: Path | None, encode: Callable[[str], list[int]], context: int) -> Texts:
    """Read a text, and cut it into windows.

    Args:
        path: a file of plain text in UTF-8; None for the reference of the Python language, which comes with Python
            (`pydoc_data.topics`).
        encode: converts text to tokens.
        context: the model's longest context, in tokens.

    Raises:
        NotFoundError: there is no such file.
        InvalidArgumentError: the file cannot be read, is not text, or is too short.
    """
    text, name = (_own(), "Python's language reference") if path is None else (_read(path), f"'{path.name}'")
    size = min(WINDOW, context)
    tokens = encode(text[: 16 * size * (_MOST_CALIBRATION + _MOST_COMPARISON)])
    if len(tokens) < min(_FEWEST_TOKENS, size):
        raise InvalidArgumentError(
            f"{name} has {len(tokens)} tokens (--calibrate); give a text of at least {min(_FEWEST_TOKENS, size)}, "
            f"better of {size * (_MOST_CALIBRATION + _MOST_COMPARISON):,}"
        )
    windows = [tokens[begin : begin + size] for begin in range(0, len(tokens), size)]
    if len(windows) > 1 and len(windows[-1]) < size:
        windows.pop()
    windows = windows[: _MOST_CALIBRATION + _MOST_COMPARISON]
    if len(windows) < _HELD_OUT:
        count = sum(map(len, windows))
        return Texts(windows, windows, f"{count:,} tokens of {name}, which calibration used, too", path is None)
    held = windows[_HELD_OUT - 1 :: _HELD_OUT]
    used = [each for number, each in enumerate(windows) if number % _HELD_OUT != _HELD_OUT - 1]
    origin = f"{sum(map(len, held)):,} tokens of {name}, apart from the {sum(map(len, used)):,} of calibration"
    return Texts(used, held, origin, path is None)


def _read(path: Path) -> str:
    try:
        text = read_file(path, _MOST_BYTES).decode()
    except FileNotFoundError:
        raise NotFoundError(f"there is no text '{path}' (--calibrate)") from None
    except OSError as error:
        raise InvalidArgumentError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(
            f"'{path}' is no text in UTF-8: {error.reason} at byte {error.start}; weights of a decoder are calibrated "
            "on plain text"
        ) from None
    return text


def _own() -> str:
    # This is imported here, since the module is large and not needed elsewhere.
    from pydoc_data import topics

    return "\n".join(topics.topics[name] for name in sorted(topics.topics))
