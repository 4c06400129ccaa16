"""Retires versions: they get no new requests, finish the ones that they have, and are freed."""

import asyncio
from collections.abc import Iterable, Sequence

from triune.core.heap import HEAP
from triune.core.servable import Servable
from triune.core.threads import in_thread_or_here
from triune.repository.override import Override
from triune.repository.record import Serving


class Retiring:
    """Holds replaced and unloaded versions until they are freed.

    Attributes:
        servables: the servables of these versions.
    """

    def __init__(self) -> None:
        self.servables: set[Servable] = set()
        self._is_refusing = False

    def add(self, servings: Iterable[Serving]) -> None:
        """Register versions that `retire` will be called with later, so that the repository's `drain` waits for them
        from now on.
        """
        self.servables.update(each.loaded.servable for each in servings)

    def refuse(self) -> None:
        """Refuse the requests that have not begun, of these versions and of versions that retire later."""
        self._is_refusing = True
        for servable in self.servables:
            servable.refuse()

    async def retire(self, servings: Sequence[Serving], override: Override | None) -> None:
        """Let versions finish their requests, free them, and remove the files of the request that loaded them."""
        self.add(servings)
        for each in servings:
            each.charge.is_leaving = True
        for ended in await asyncio.gather(*map(self._end, servings), return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended
        await remove(override)

    async def _end(self, serving: Serving) -> None:
        """Let a version finish its requests and the requests of ensembles that use it, then free it."""
        servable = serving.loaded.servable
        if self._is_refusing:
            servable.refuse()
        else:
            # Drain this version first, so that the requests of ensembles to it do not wait for others to share a batch
            # with.
            await servable.drain()
            await serving.loaded.holds.until_free()
        await servable.drain()
        await servable.close()
        serving.charge.release()
        HEAP.give_back_soon()
        self.servables.discard(servable)


async def remove(override: Override | None) -> None:
    """Remove the files that a load request brought (`override`), if there are any."""
    if override is not None:
        await in_thread_or_here(override.remove)
