"""Compute fingerprints (stamps) of models' folders in threads. Polling reads large and invalid folders less often."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from triune.config.stamps import Stamp, stamp
from triune.core.clock import Clock
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.threads import in_thread

_FIRST_WAIT_NS = 15_000_000_000
_LONGEST_WAIT_NS = 300_000_000_000


_MANY_FILES = 1000
_WAIT_NS_OF_FILE = 1_000_000
"""The time in ns, for each file of a large folder, until polling reads the folder again. Reading then takes about 1% of
the time.
"""


@dataclass(frozen=True, slots=True)
class _KnownFolder:
    """A folder that is not read again for a while.

    Attributes:
        signature: the folder's inode, or the target of a link.
        why: the reason why the folder was refused; None if it was accepted.
        wait_ns: how long the folder is not read, unless its signature changes.
        until_ns: the time, on the clock, from which it is read again.
    """

    signature: tuple[int, ...]
    why: str | None
    wait_ns: int
    until_ns: int


class FolderStamps:
    """Computes the fingerprints of models' folders, by `config.stamps.stamp`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[Path, _KnownFolder] = {}
        self._is_closed = False

    async def stamp_of(self, folder: Path, known: Stamp | None) -> Stamp:
        """Compute the fingerprint of a folder, in a thread. It is cancelled when the server stops.

        Raises:
            InvalidArgumentError: the folder is not valid: see `stamp`.
            UnavailableError: the server is stopping.
            NoThreadError: the system cannot start a thread.
        """
        return await in_thread(stamp, folder, known, self._check)

    async def stamp_for_polling(self, folder: Path, known: Stamp | None) -> Stamp:
        """Compute the fingerprint of a folder for polling, with the errors of `stamp_of`.

        A folder that was refused is refused again without being read, for 15 seconds; the time doubles each time, up to
        five minutes. For a folder with many files the known fingerprint is returned for a while. If another folder or
        link is at the path, it is read at once.
        """
        return await in_thread(self._stamp_for_polling, folder, known)

    def forget_others(self, folders: Collection[Path]) -> None:
        """Forget all folders except the given ones."""
        for folder in self._seen.keys() - folders:
            del self._seen[folder]

    def close(self) -> None:
        """Cancel running and future calls."""
        self._is_closed = True

    def _check(self) -> None:
        if self._is_closed:
            raise UnavailableError("the server is stopping")

    def _stamp_for_polling(self, folder: Path, known: Stamp | None) -> Stamp:
        signature = _signature(folder)
        before = self._seen.get(folder)
        if before is not None and before.signature != signature:
            before = None
        if before is not None and self._clock.now_ns() < before.until_ns:
            if before.why is not None:
                raise InvalidArgumentError(before.why)
            if known is not None:
                return known
        try:
            found = stamp(folder, known, self._check)
        except InvalidArgumentError as error:
            was_refused = before is not None and before.why is not None
            wait_ns = min(before.wait_ns * 2, _LONGEST_WAIT_NS) if before and was_refused else _FIRST_WAIT_NS
            self._seen[folder] = _KnownFolder(signature, str(error), wait_ns, self._clock.now_ns() + wait_ns)
            raise
        wait_ns = found.num_files * _WAIT_NS_OF_FILE
        if found.num_files >= _MANY_FILES:
            self._seen[folder] = _KnownFolder(signature, None, wait_ns, self._clock.now_ns() + wait_ns)
        else:
            self._seen.pop(folder, None)
        return found


def _signature(folder: Path) -> tuple[int, ...]:
    """The identity of the folder at a path: the inode, or the target of a link."""
    try:
        entry = os.lstat(folder)
        target = os.stat(folder)  # noqa: PTH116
    except OSError:
        return ()
    return entry.st_dev, entry.st_ino, entry.st_mtime_ns, target.st_dev, target.st_ino
