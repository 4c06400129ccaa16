"""The Servable protocol: an object that answers the requests for a loaded model."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from triune.core.datatypes import Array
from triune.core.energy import Bill
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.statistics import ModelStatistics

_QUICK_ELEMENTS = 1024


@dataclass(frozen=True, slots=True)
class Finisher:
    """Converts a model's response to the client's response.

    Attributes:
        convert: the conversion. An error that it raises becomes the answer.
        classified: the outputs whose elements the conversion sorts and formats, which takes time. For other outputs it
            is quick.
    """

    convert: Callable[[InferenceResponse], InferenceResponse]
    classified: frozenset[str] = frozenset()

    def num_elements(self, outputs: Mapping[str, Array]) -> int:
        """The number of elements of the outputs that the conversion sorts."""
        return sum(outputs[name].size for name in self.classified if name in outputs)

    def is_quick(self, outputs: Mapping[str, Array]) -> bool:
        """Whether the conversion takes less than a millisecond. If not, it is done in a thread."""
        return not self.classified or self.num_elements(outputs) <= _QUICK_ELEMENTS


@dataclass(slots=True)
class ComputeTime:
    """The compute time of a request, in nanoseconds. If the request runs as several batches, their times are added
    up.
    """

    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0

    def add(self, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """Add the time of one batch."""
        self.input_ns += input_ns
        self.infer_ns += infer_ns
        self.output_ns += output_ns


@dataclass(slots=True)
class Call:
    """A request that was checked against the model's config, and is not checked again.

    Attributes:
        request: the client's request.
        inputs: its inputs in the model's shapes. They are kept until the answer, and never written.
        batch_size: the number of rows; 1 without a batch dimension.
        finish: converts the model's response to the client's (classification, reshape). With None, the response is not
            converted.
        compute_time: the servable adds the compute time here before it answers; None if it is not needed.
        bill: the bill to which the request's joules are charged; None if the client did not ask for them.
        size: the size of the request, from which its run time is estimated, in any unit that all calls of the model
            share. None means the number of elements in its inputs.
    """

    request: InferenceRequest
    inputs: Mapping[str, Array] = field(repr=False)
    batch_size: int
    finish: Finisher | None = None
    compute_time: ComputeTime | None = None
    bill: Bill | None = None
    size: int | None = None


class Servable(Protocol):
    """Answers the requests for one loaded version of a model. Every method is called on the event loop's thread."""

    @property
    def statistics(self) -> ModelStatistics:
        """The counters since the version was loaded. Only the servable changes them."""
        ...

    def submit(self, call: Call) -> asyncio.Future[InferenceResponse]:
        """Start a request that has exactly one answer.

        Returns:
            a future of the answer, which may be done already. Its exception is a TriuneError. Cancelling it cancels
                the request.

        Raises:
            UnavailableError: the queue is full, or `refuse` was called.
            InvalidArgumentError: the request names something that the servable does not have, such as a unit.
        """
        ...

    def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        """Start a request, and yield its answers. Raises the same errors as `submit`. Closing the generator cancels the
        request.
        """
        ...

    def refuse(self) -> None:
        """Refuse waiting and new requests; running requests finish."""
        ...

    async def drain(self) -> None:
        """Wait until no request waits or runs. Call this when clients send no new requests: waiting requests then do
        not wait for others to share a batch with.
        """
        ...

    async def close(self) -> None:
        """Refuse waiting and new requests, let running requests finish, and free everything."""
        ...


async def only_answer(servable: Servable, call: Call) -> AsyncGenerator[InferenceResponse]:
    """Implement `Servable.stream` for a servable whose requests have exactly one answer."""
    future = servable.submit(call)
    try:
        yield await future
    finally:
        future.cancel()
