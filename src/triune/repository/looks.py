"""Looks at models' folders, in threads: seldom at those that are large or refused, and given up at the end."""

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
"""A folder of many files is looked at again after so long for each of them: that takes a hundredth of the time."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A folder that is not looked at for a while.

    Attributes:
        signature: what the entry of the repository looked like.
        why: the reason why it was refused, if it was.
        wait_ns: from the look until the next, while the signature is the same.
        until_ns: when that is over.
    """

    signature: tuple[int, ...]
    why: str | None
    wait_ns: int
    until_ns: int


class Looks:
    """Stamps of models' folders."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[Path, _Seen] = {}
        self._is_closed = False

    async def look(self, folder: Path, known: Stamp | None) -> Stamp:
        """As `stamp`. What goes on when the server stops is given up.

        Raises:
            InvalidArgumentError: as `stamp`.
            UnavailableError: the server is stopping.
            NoThreadError: the system has no thread for it.
        """
        return await in_thread(stamp, folder, known, self._check)

    async def look_again(self, folder: Path, known: Stamp | None) -> Stamp:
        """As `look`, for those who come again and again, and raises as it.

        A folder that was refused is refused again for the same reason, without a look: for 15 seconds, and twice as
        long each time, up to five minutes. One of many files is taken as known for a while. Where another folder or
        link lies there, it is looked at.
        """
        return await in_thread(self._look_again, folder, known)

    def forget_others(self, folders: Collection[Path]) -> None:
        """Forget what any other folders were like."""
        for folder in self._seen.keys() - folders:
            del self._seen[folder]

    def close(self) -> None:
        """Give up the looks under way, and those to come."""
        self._is_closed = True

    def _check(self) -> None:
        if self._is_closed:
            raise UnavailableError("the server is stopping")

    def _look_again(self, folder: Path, known: Stamp | None) -> Stamp:
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
            self._seen[folder] = _Seen(signature, str(error), wait_ns, self._clock.now_ns() + wait_ns)
            raise
        wait_ns = found.num_files * _WAIT_NS_OF_FILE
        if found.num_files >= _MANY_FILES:
            self._seen[folder] = _Seen(signature, None, wait_ns, self._clock.now_ns() + wait_ns)
        else:
            self._seen.pop(folder, None)
        return found


def _signature(folder: Path) -> tuple[int, ...]:
    """What an entry of a repository looks like; of a link, where it leads, whatever happens there."""
    try:
        entry = os.lstat(folder)
        target = os.stat(folder)  # noqa: PTH116
    except OSError:
        return ()
    return entry.st_dev, entry.st_ino, entry.st_mtime_ns, target.st_dev, target.st_ino
