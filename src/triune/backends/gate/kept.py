"""Stores verdicts on disk, so that a later start need not compare again."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any, Final, cast

from triune.config.load_key import digest_of
from triune.config.placement import Recipe
from triune.core.files import read_file, replace_file
from triune.core.oldest import forget_oldest
from triune.core.printable import encodable
from triune.core.verdict import Verdict

_log = logging.getLogger(__name__)

_MOST: Final = 4096
"""The largest number of stored verdicts; the oldest are deleted."""

_MOST_BYTES: Final = 1 << 16


class KeptVerdicts:
    """A folder with a file for each verdict. May be used from any thread, and by several processes."""

    def __init__(self, folder: Path) -> None:
        """`folder` has a file for each verdict. It is created when a verdict is stored."""
        self._folder = folder

    def find(self, load_key: str, recipe: Recipe) -> Verdict | None:
        """Return the stored verdict on an executable of this recipe, for the load with this key (`config.load_key`);
        None if there is none, or if it cannot be read.
        """
        path = self._path(load_key, recipe)
        try:
            content = json.loads(read_file(path, _MOST_BYTES))
            return _verdict(content)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            _log.warning("what is kept of a unit's answers in %s cannot be read, and is found again: %s", path, error)
            return None

    def keep(self, load_key: str, recipe: Recipe, verdict: Verdict) -> None:
        """Store a verdict, replacing an older one. If the folder cannot be written to, a warning is logged."""
        path = self._path(load_key, recipe)
        content = dataclasses.asdict(verdict)
        try:
            replace_file(path, json.dumps(content))
            forget_oldest(self._folder, _MOST)
        except OSError as error:
            _log.warning(
                "cannot write to %s: %s; each start compares the units of every model: set TRIUNE_CACHE to a folder "
                "that can be written",
                self._folder,
                error.strerror or error,
            )

    def _path(self, load_key: str, recipe: Recipe) -> Path:
        return self._folder / f"{digest_of([load_key, repr(recipe)])}.json"


def _verdict(content: Any) -> Verdict:
    if not isinstance(content, dict):
        raise TypeError(f"it is not an object but {content!r:.100}")
    table = cast("dict[str, Any]", content)
    agreement, cosine = table["agreement"], table["cosine"]
    return Verdict(
        precision=_text(table["precision"]),
        tolerance=_number(table["tolerance"]),
        largest=_number(table["largest"]),
        relative=_number(table["relative"]),
        agreement=None if agreement is None else _number(agreement),
        cosine=None if cosine is None else _cosine(cosine),
        excess=_text(table["excess"]),
        cause=_text(table["cause"]),
        is_kept=True,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.100} is no text")
    if encodable(value) != value:
        raise ValueError(f"{value!r:.100} is no text that UTF-8 can encode")
    return value


def _number(value: object) -> float:
    """Require a number of at least 0, which may be infinite. NaN is refused: it would be within every tolerance."""
    if not isinstance(value, int | float) or value != value or value < 0:
        raise ValueError(f"{value!r:.100} is not a number from 0 on")
    return float(value)


def _cosine(value: object) -> float:
    if not isinstance(value, int | float) or not -1.001 <= value <= 1.001:
        raise ValueError(f"{value!r:.100} is no cosine")
    return float(value)
