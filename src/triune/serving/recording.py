"""Records the arrival times of requests in a trace (`simulation.trace`), for `triune simulate`."""

import logging
import os
import queue
from pathlib import Path
from typing import Final, TextIO

from triune.core.clock import Clock
from triune.core.errors import AlreadyExistsError, InvalidArgumentError
from triune.core.requests import UNIT_PARAMETER
from triune.core.servable import Call
from triune.core.threads import start_thread
from triune.core.units import Unit
from triune.simulation.trace import LONGEST_LINE_BYTES, MOST_ARRIVALS, Arrival, line_of

MOST_WAITING: Final = 65_536
"""The most requests that wait in memory to be written."""

_UNITS: Final = {unit.value: unit for unit in Unit}
_CLOSING_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


class Recording:
    """Writes a line for each request that a model accepts, in a thread. The contents of requests are never recorded.

    It ends after `most` requests, or when the disk is too slow or full, and logs this. The file then has all requests
    up to that point.
    """

    def __init__(self, path: Path, clock: Clock, most: int = MOST_ARRIVALS) -> None:
        """Args:
        path: the file, which must not exist.
        clock: the clock of the arrival times. The trace begins now.
        most: the largest number of recorded requests; each takes about 60 bytes.

        Raises:
            AlreadyExistsError: the file exists.
            InvalidArgumentError: the file cannot be created.
        """
        try:
            self._file: TextIO = path.open("x", encoding="utf-8")
        except FileExistsError:
            raise AlreadyExistsError(f"{path} exists, and a recording replaces no file; name another") from None
        except OSError as error:
            raise InvalidArgumentError(f"a trace cannot be written to {path}: {error.strerror or error}") from error
        self._path = path
        self._clock = clock
        self._began_ns = clock.now_ns()
        self._num_left = most
        self._arrived: queue.SimpleQueue[Arrival | None] = queue.SimpleQueue()
        self._thread = start_thread(self._write, "recording")

    def record(self, call: Call) -> None:
        """Record a request, in about a microsecond. Called on the event loop's thread."""
        if self._num_left <= 0:
            return
        if self._arrived.qsize() >= MOST_WAITING:
            self._end(f"the disk is too slow, and {MOST_WAITING} requests wait to be written")
            return
        request, now_ns = call.request, self._clock.now_ns()
        unit = _UNITS.get(f"{request.parameters.get(UNIT_PARAMETER)}") if request.parameters else None
        self._arrived.put(Arrival(now_ns - self._began_ns, request.model, call.batch_size, unit, request.priority))
        self._num_left -= 1
        if not self._num_left:
            self._end("it has as many requests as a trace may have")

    def close(self) -> None:
        """Write the waiting lines, for at most a few seconds."""
        self._num_left = 0
        self._arrived.put(None)
        self._thread.join(_CLOSING_SECONDS)

    def _end(self, why: str) -> None:
        self._num_left = 0
        _log.warning("the recording of requests to %s has ended: %s", self._path, why)

    def _write(self) -> None:
        try:
            with self._file:
                while (arrival := self._arrived.get()) is not None:
                    self._file.write(line_of(arrival))
                    if self._arrived.empty():
                        self._file.flush()
        except OSError as error:
            self._end(f"it cannot be written: {error.strerror or error}")
            self._drop_half_line()

    def _drop_half_line(self) -> None:
        """Remove an incomplete last line, which did not fit on the disk, so that the file can be read."""
        try:
            with self._path.open("r+b") as file:
                num_bytes = file.seek(0, os.SEEK_END)
                begin = file.seek(max(0, num_bytes - LONGEST_LINE_BYTES))
                file.truncate(begin + file.read().rfind(b"\n") + 1)
        except OSError as error:
            _log.warning("the last line of %s may be half a line: %s", self._path, error.strerror or error)
