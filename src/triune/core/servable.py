"""What answers requests: the one seam between the server and everything that serves."""

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
    """How long the batches of a request took, in nanoseconds. Who makes a request of several adds them up."""

    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0

    def add(self, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """What one batch took."""
        self.input_ns += input_ns
        self.infer_ns += infer_ns
        self.output_ns += output_ns


@dataclass(slots=True)
class Call:
    """A request that was checked against the model's config. Nothing below checks again.

    Attributes:
        request: as the client sent it.
        inputs: its inputs in the model's own shapes; kept until it is answered, never written.
        batch_size: rows; 1 without a batch dimension.
        finish: makes the client's view of an answer (classification, reshape); what it raises is the answer instead.
            None leaves the answer as it is.
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
        """What it counted since it was loaded. Written by the servable, read by anyone."""
        ...

    def submit(self, call: Call) -> asyncio.Future[InferenceResponse]:
        """Take a request that has exactly one answer.

        Returns:
            the answer's future, perhaps done already. Its exception is a TriuneError. Cancelling it withdraws the
            request.

        Raises:
            UnavailableError: its queue is full, or `refuse` was called.
            InvalidArgumentError: the request asks for what the servable does not have.
        """
        ...

    def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        """Take a request that has any number of answers. Raises as `submit` does; closing the generator cancels it."""
        ...

    def refuse(self) -> None:
        """Refuse what waits and what comes; what runs finishes."""
        ...

    async def drain(self) -> None:
        """Wait until no request waits or runs."""
        ...

    async def close(self) -> None:
        """Refuse what waits and what comes, let what runs finish, and free everything."""
        ...


async def only_answer(servable: Servable, call: Call) -> AsyncGenerator[InferenceResponse]:
    """`Servable.stream` of a servable whose requests have exactly one answer."""
    future = servable.submit(call)
    try:
        yield await future
    finally:
        future.cancel()
