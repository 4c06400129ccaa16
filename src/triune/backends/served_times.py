"""Stores how long models took while they were served, for plans on this machine."""

import datetime
import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from triune.backends.backend import Build
from triune.hardware.measured import machine_key
from triune.planning.measured import SERVED, MeasuredTime, dated, keep_times, key_of
from triune.runtimes.described import known_units

_DIGEST_LENGTH = 64
"""The length of a SHA-256 in hexadecimal. A file that was too large to read has another stamp."""

_log = logging.getLogger(__name__)


class ServedTimes:
    """The folder of the times of all models on this machine. Any thread may use it."""

    def __init__(self, folder: Path) -> None:
        """`folder` is created when the first times are stored."""
        self._folder = folder

    @functools.cached_property
    def _machine(self) -> str:
        """The machine with the versions of its runtimes. Describing a Mac takes up to two seconds."""
        return machine_key(known_units())

    def keep(self, digests: Sequence[str], times: Sequence[MeasuredTime]) -> None:
        """Store the times of a model whose files have these digests. If the folder cannot be written to, this is
        logged. Blocks.
        """
        source = f"{SERVED}, {datetime.datetime.now(tz=datetime.UTC).date().isoformat()}"
        try:
            keep_times(self._folder, key_of(digests, self._machine), dated(times, source))
        except OSError as error:
            _log.warning(
                "cannot write to %s: %s; plans for this machine (`triune plan`) know nothing of what was measured: set "
                "TRIUNE_CACHE to a folder that can be written",
                self._folder,
                error.strerror or error,
            )


def digests_of(build: Build) -> Sequence[str] | None:
    """The SHA-256 digests of the file of a version's model, or of the files of its folder, in the order of their paths;
    None if they are not known.

    They are those of the files that were loaded: others may have taken their place since.
    """
    source, path = build.source, build.config.path
    files = source.stamp.versions.get(build.version, {})
    found = [
        each.digest
        for name, each in sorted(files.items(), key=lambda file: Path(file[0]))
        if path in ((whole := source.folder / name), *whole.parents)
    ]
    return found if found and all(len(each) == _DIGEST_LENGTH for each in found) else None
