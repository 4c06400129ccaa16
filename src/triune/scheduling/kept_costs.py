"""Stores how long batches took, so that a later load of the same model need not find it out again."""

import json
import logging
from pathlib import Path
from typing import Any, Final, cast

from triune.arbiter.cost import BatchCost
from triune.core.files import read_file, replace_file
from triune.core.oldest import forget_oldest

_MOST: Final = 4096
"""The largest number of stored files; the oldest are deleted."""

_MOST_BYTES: Final = 1 << 16

_log = logging.getLogger(__name__)


class KeptCosts:
    """The file with the times of one executable's batches. Used from one thread at a time.

    Attributes:
        found: the times that an earlier load stored; empty if there is no file, or if it cannot be read, which is
            logged.
    """

    def __init__(self, path: Path) -> None:
        """Read the file. `path` must be another one for another model, unit, machine or version of a library."""
        self._path = path
        self.found: list[BatchCost] = []
        try:
            content = json.loads(read_file(path, _MOST_BYTES))
            self.found = [_cost(each) for each in cast("list[Any]", content["batches"])]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            _log.warning("the times of batches in %s cannot be read, and are measured again: %s", path, error)

    def keep(self, costs: list[BatchCost]) -> None:
        """Store times, replacing older ones. If the folder cannot be written to, this is logged."""
        try:
            batches = [{"num_elements": each.num_elements, "ns": each.ns} for each in costs]
            replace_file(self._path, json.dumps({"batches": batches}))
            forget_oldest(self._path.parent, _MOST)
        except OSError as error:
            _log.warning(
                "cannot write to %s: %s; each load measures the times of batches again: set TRIUNE_CACHE to a folder "
                "that can be written",
                self._path.parent,
                error.strerror or error,
            )


def _cost(content: Any) -> BatchCost:
    num_elements, ns = content["num_elements"], content["ns"]
    for each in (num_elements, ns):
        if isinstance(each, bool) or not isinstance(each, int | float) or not 0 < each < float("inf"):
            raise ValueError(f"{each!r:.100} is not a number above 0")
    return BatchCost(float(num_elements), float(ns))
