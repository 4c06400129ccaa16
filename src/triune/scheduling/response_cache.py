"""The response cache: a servable that answers repeated requests from memory, and lets an inner servable answer the
others.
"""

import asyncio
import contextlib
import hashlib
import itertools
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from triune.core.clock import Clock
from triune.core.datatypes import Array
from triune.core.requests import InferenceResponse
from triune.core.servable import Call, Servable, only_answer
from triune.core.sizes import array_bytes, content_bytes
from triune.core.statistics import ModelStatistics
from triune.core.threads import NoThreadError, in_thread

MAX_INLINE_BYTES = 64 << 10
"""The most bytes of inputs to hash, or of outputs to copy, on the event loop: this takes 0.1 milliseconds."""

ENTRY_BYTES = 512
"""The assumed memory, in bytes, of an entry besides its tensors."""

_DROPPED_AT_ONCE = 256

_FEW_ELEMENTS = 1024
"""The most BYTES elements to hash on the event loop."""

_Unanswered: TypeAlias = tuple[asyncio.Future[InferenceResponse], asyncio.Future[InferenceResponse]]

_owners = itertools.count()


@dataclass(frozen=True, slots=True)
class _Entry:
    response: InferenceResponse
    num_bytes: int
    siblings: set[bytes]


class ResponseCache:
    """A cache of responses, which drops the least recently used ones. Used only on the event loop's thread.

    Invariant: `num_bytes`, the sum of the entries' sizes, is never more than `max_bytes`.
    """

    def __init__(self, max_bytes: int) -> None:
        """Args:
        max_bytes: the memory limit of all responses together, in bytes.
        """
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> InferenceResponse | None:
        """Return the response for a key; None if there is none. The caller must not change it."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.response

    def put(self, key: bytes, response: InferenceResponse, num_bytes: int, siblings: set[bytes]) -> None:
        """Store a response, unless it is larger than the whole cache.

        Args:
            key: the cache key.
            response: the response; it must not be changed from now on.
            num_bytes: its size.
            siblings: the keys of all cached responses of the same servable. The cache adds this key, and removes it
                when it drops the response.
        """
        if num_bytes > self.max_bytes:
            return
        self.drop(key)
        while self.num_bytes + num_bytes > self.max_bytes:
            self.drop(next(iter(self._entries)))
        self._entries[key] = _Entry(response, num_bytes, siblings)
        siblings.add(key)
        self.num_bytes += num_bytes

    def drop(self, key: bytes) -> None:
        """Remove a response, if it is in the cache."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.num_bytes -= entry.num_bytes
            entry.siblings.discard(key)


def size_of(array: Array) -> int:
    """The memory of an array in bytes, with the elements of a BYTES array and their contents."""
    return array_bytes(array) + content_bytes(array)


def is_small(arrays: Iterable[Array]) -> bool:
    """Whether arrays are small enough to be hashed and copied on the event loop."""
    num_bytes = 0
    for array in arrays:
        if array.dtype.hasobject and array.size > _FEW_ELEMENTS:
            return False
        num_bytes += size_of(array)
    return num_bytes <= MAX_INLINE_BYTES


def to_keep(response: InferenceResponse) -> tuple[InferenceResponse, int]:
    """Make a response that can be stored: views are copied, and all arrays are read-only.

    Returns:
        the response, and its size in bytes.
    """
    outputs: dict[str, Array] = {}
    for name, array in response.outputs.items():
        kept = array.copy() if array.base is not None else array.view()
        kept.flags.writeable = False
        outputs[name] = kept
    return replace(response, outputs=outputs), ENTRY_BYTES + sum(map(size_of, outputs.values()))


def key_of(call: Call, owner: int) -> bytes:
    """The cache key of a request: a hash of the servable's number `owner`, the inputs, the requested outputs and the
    parameters.
    """
    digest = hashlib.blake2b(digest_size=32)
    request = call.request
    asked = [(output.name, output.num_classes) for output in request.outputs]
    names = sorted(call.inputs)
    tensors = [(name, call.inputs[name].dtype.str, call.inputs[name].shape) for name in names]
    digest.update(repr((owner, asked, sorted(request.parameters.items()), tensors)).encode())
    for name in names:
        array = call.inputs[name]
        if array.dtype.hasobject:
            for element in array.ravel().tolist():
                digest.update(len(element).to_bytes(8))
                digest.update(element)
        else:
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()


class CachedServable:
    """A `Servable` that answers requests from the cache if it can, and else asks the inner servable.

    It stores complete responses to clients, including classifications, but no errors. If two equal requests come at the
    same time, both are computed.
    """

    def __init__(self, inner: Servable, cache: ResponseCache, clock: Clock, *, is_ordered: bool = False) -> None:
        """Args:
        inner: the servable that computes responses which are not in the cache. It is closed with this one.
        cache: the cache, shared with other servables.
        clock: the clock.
        is_ordered: whether responses are sent in the order of the requests (Triton's `preserve_ordering`).
        """
        self._inner = inner
        self._cache = cache
        self._clock = clock
        self._owner = next(_owners)
        self._keys: set[bytes] = set()
        self._tasks: set[asyncio.Task[InferenceResponse]] = set()
        self._keeping: set[asyncio.Task[None]] = set()
        self._unanswered: deque[_Unanswered] | None = deque() if is_ordered else None
        self._is_refusing = False
        self.statistics.has_cache = True

    @property
    def statistics(self) -> ModelStatistics:
        """The inner servable's counters, which include cache hits."""
        return self._inner.statistics

    def submit(self, call: Call) -> asyncio.Future[InferenceResponse]:
        """Answer a request from the cache, or let `inner` compute it: see `Servable.submit`."""
        if self._is_refusing:
            return self._inner.submit(call)
        if is_small(call.inputs.values()):
            started_ns = self._clock.now_ns()
            future = self._look_up(call, key_of(call, self._owner), started_ns, self._clock.now_ns())
        else:
            future = asyncio.get_running_loop().create_task(self._submit_large(call))
            self._tasks.add(future)
            future.add_done_callback(self._tasks.discard)
        return future if self._unanswered is None else self._in_order(future, self._unanswered)

    def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        """Yield the one answer of a request: see `Servable.stream`."""
        return only_answer(self, call)

    def refuse(self) -> None:
        """Refuse waiting and new requests; running ones finish."""
        self._is_refusing = True
        self._inner.refuse()

    async def drain(self) -> None:
        """Wait until no request waits or runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._inner.drain()

    async def close(self) -> None:
        """Close the inner servable, and remove its responses from the cache."""
        self.refuse()
        await self.drain()
        await self._inner.close()
        while self._keys:
            for key in list(itertools.islice(self._keys, _DROPPED_AT_ONCE)):
                self._cache.drop(key)
            await asyncio.sleep(0)

    async def _submit_large(self, call: Call) -> InferenceResponse:
        started_ns = self._clock.now_ns()
        self.statistics.num_pending += 1
        try:
            key = await in_thread(key_of, call, self._owner)
        finally:
            self.statistics.num_pending -= 1
        return await self._look_up(call, key, started_ns, self._clock.now_ns())

    def _look_up(self, call: Call, key: bytes, started_ns: int, hashed_ns: int) -> asyncio.Future[InferenceResponse]:
        kept = self._cache.get(key)
        if kept is None:
            future = self._inner.submit(call)
            future.add_done_callback(partial(self._keep, key, hashed_ns - started_ns))
            return future
        future = asyncio.get_running_loop().create_future()
        self.statistics.record_cache_hit(self._clock.now_ns() - started_ns)
        future.set_result(replace(kept, outputs=dict(kept.outputs), id=call.request.id))
        return future

    def _keep(self, key: bytes, looked_ns: int, future: asyncio.Future[InferenceResponse]) -> None:
        """Store a response that was computed. Errors are not stored.

        Args:
            key: the request's key.
            looked_ns: how long the look-up in the cache took, for the statistics.
            future: the response, which is done.
        """
        if future.cancelled() or future.exception() is not None or self._is_refusing:
            return
        response = future.result()
        if is_small(response.outputs.values()):
            begun_ns = self._clock.now_ns()
            self._put(key, *to_keep(response))
            self.statistics.cache_miss.add(looked_ns + self._clock.now_ns() - begun_ns)
            return
        self.statistics.cache_miss.add(looked_ns)
        task = asyncio.get_running_loop().create_task(self._keep_large(key, response))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _keep_large(self, key: bytes, response: InferenceResponse) -> None:
        with contextlib.suppress(NoThreadError):
            self._put(key, *await in_thread(to_keep, response))

    def _put(self, key: bytes, response: InferenceResponse, num_bytes: int) -> None:
        if not self._is_refusing:
            self._cache.put(key, response, num_bytes, self._keys)

    def _in_order(
        self, inner: asyncio.Future[InferenceResponse], unanswered: deque[_Unanswered]
    ) -> asyncio.Future[InferenceResponse]:
        """Return a future with the result of `inner`. It is done only after the futures of all earlier requests."""
        outer: asyncio.Future[InferenceResponse] = asyncio.get_running_loop().create_future()
        unanswered.append((outer, inner))
        outer.add_done_callback(lambda _: inner.cancel())

        def answer(_: asyncio.Future[InferenceResponse]) -> None:
            while unanswered and unanswered[0][1].done():
                _settle(*unanswered.popleft())

        inner.add_done_callback(answer)
        return outer


def _settle(outer: asyncio.Future[InferenceResponse], inner: asyncio.Future[InferenceResponse]) -> None:
    if outer.done():
        return
    if inner.cancelled():
        outer.cancel()
    elif (error := inner.exception()) is not None:
        outer.set_exception(error)
    else:
        outer.set_result(inner.result())
