"""The Servable protocol: the server passes every request to a servable, which answers it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from triune.core.datatypes import Array
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.statistics import ModelStatistics

Finisher: TypeAlias = Callable[[InferenceResponse], InferenceResponse]


@dataclass(slots=True)
class ComputeTime:
    """Compute time of a request, in nanoseconds. A request that runs as several batches adds them up."""

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
        inputs: its inputs in the model's shapes; kept until it is answered, never written.
        batch_size: rows; 1 without a batch dimension.
        finish: turns the model's response into the client's (classification, reshape). An error that it raises becomes
            the answer. None leaves the response as it is.
        compute_time: the servable adds its compute time here before it answers; None if nobody asks.
    """

    request: InferenceRequest
    inputs: Mapping[str, Array]
    batch_size: int
    finish: Finisher | None = None
    compute_time: ComputeTime | None = None


class Servable(Protocol):
    """Answers the requests for one loaded version of a model. Every method is called on the event loop's thread."""

    @property
    def statistics(self) -> ModelStatistics:
        """The counters since it was loaded. Only the servable writes them."""
        ...

    def submit(self, call: Call) -> asyncio.Future[InferenceResponse]:
        """Take a request that has exactly one answer.

        Returns:
            a future of the answer, which may be done already. Its exception is a TriuneError. Cancelling it cancels
                the request.

        Raises:
            UnavailableError: its queue is full, or `refuse` was called.
            InvalidArgumentError: the request names something that the servable does not have, such as a unit.
        """
        ...

    def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        """Take a request that has any number of answers. Raises as `submit` does; closing the generator cancels it."""
        ...

    def refuse(self) -> None:
        """Refuse waiting and new requests; running requests finish."""
        ...

    async def drain(self) -> None:
        """Wait until no request waits or runs."""
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
