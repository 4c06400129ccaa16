"""Lists the repositories' folders, and keeps the last listing."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from triune.core.threads import in_thread
from triune.repository.finding import Finder, Found


class Listing:
    """Lists the folders of repositories in threads. Concurrent callers share one listing.

    Attributes:
        found: the models that the last listing found, by name.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        """Args:
        folders: the repositories.
        """
        self.found: Mapping[str, Found] = {}
        self._finder = Finder(folders)
        self._looking = asyncio.Lock()
        self._num_begun = self._last_ended = 0

    @property
    def is_made(self) -> bool:
        """Whether the folders have been listed."""
        return self._last_ended > 0

    async def list(self) -> None:
        """List the folders. The listing begins after the call.

        Raises:
            InvalidArgumentError: a repository's folder cannot be read, and no earlier listing could read it.
        """
        num_begun = self._num_begun
        async with self._looking:
            # If several callers wait for a running listing, one of them makes the next listing for all.
            if self._last_ended > num_begun:
                return
            self._num_begun += 1
            number = self._num_begun
            self.found = await in_thread(self._finder.find)
            self._last_ended = number
