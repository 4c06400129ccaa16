"""A batch: requests that run together, and their answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from triune.config.policy import BatchingPolicy
from triune.core.datatypes import Array
from triune.core.errors import TriuneError
from triune.core.requests import InferenceResponse
from triune.scheduling.queue import Pending

Respond: TypeAlias = Callable[[Pending, dict[str, Array]], InferenceResponse]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The model computed its outputs, but converting them to the client's response (`Call.finish`) failed."""

    error: Exception


class Batch:
    """Requests that run together.

    Attributes:
        pendings: the requests, in order.
        num_rows: the total number of rows.
        outputs: the model's outputs, in order.
        has_rows: whether the first dimension of every tensor is a batch dimension.
        ragged: inputs whose rows may differ in shape.
        respond: makes the response of a request that has a `finish`; None if the dispatcher makes it.
        answers: for each request its outputs by name, or an error; filled by the runner. For a request with a
            `finish`, the finished response: classification can be slow, so the worker does it, not the event loop.
        num_executions: how often the model ran: 1, or more if the batch failed and each request ran alone.
        started_ns, ended_ns: when the run began and ended, on the clock.
        input_ns, infer_ns, output_ns: the time to concatenate inputs, to run the model, and to split outputs.
        is_given_up: whether the batch exceeded its time limit, so that its requests were answered with an error. It is
            set on the event loop's thread.
        is_indivisible: whether an output of several requests did not have one row for each row of the inputs.
    """

    __slots__ = (
        "answers", "ended_ns", "has_rows", "infer_ns", "input_ns", "is_given_up", "is_indivisible", "num_executions",
        "num_rows", "output_ns", "outputs", "pendings", "ragged", "respond", "started_ns",
    )  # fmt: skip

    def __init__(
        self,
        pendings: Sequence[Pending],
        num_rows: int,
        outputs: Sequence[str],
        policy: BatchingPolicy,
        respond: Respond | None = None,
    ) -> None:
        """Args:
        pendings: at least one request, all of one group.
        num_rows: the total number of rows.
        outputs: the model's outputs, in order.
        policy: says whether there is a batch dimension, and which inputs are ragged (differ in shape from row to row).
        respond: makes the response of a request that has a `finish`; None if the dispatcher makes it.
        """
        self.respond = respond
        self.pendings = pendings
        self.num_rows = num_rows
        self.answers: Sequence[dict[str, Array] | InferenceResponse | TriuneError | Unfinished] = ()
        self.num_executions = 0
        self.started_ns = self.ended_ns = 0
        self.input_ns = self.infer_ns = self.output_ns = 0
        self.is_given_up = False
        self.is_indivisible = False
        self.outputs = outputs
        self.has_rows = policy.max_batch_size > 0
        self.ragged = policy.ragged_inputs

    def finish(self, answers: Sequence[dict[str, Array] | TriuneError]) -> None:
        """Store the model's answers in `answers`. Never raises: an error becomes the answer of its request."""
        respond = self.respond
        if respond is None or all(pending.call.finish is None for pending in self.pendings):
            self.answers = answers
        else:
            self.answers = [_finish(*each, respond) for each in zip(self.pendings, answers, strict=True)]


def _finish(
    pending: Pending, answer: dict[str, Array] | TriuneError, respond: Respond
) -> dict[str, Array] | InferenceResponse | TriuneError | Unfinished:
    if pending.call.finish is None or isinstance(answer, TriuneError) or pending.future.done():
        return answer
    try:
        return respond(pending, answer)
    except Exception as error:  # noqa: BLE001 - the event loop reports and counts this error
        return Unfinished(error)


def result_of(answer: InferenceResponse | Unfinished) -> InferenceResponse:
    """Return the response of `Call.finish`, or raise the error that it raised."""
    if isinstance(answer, Unfinished):
        raise answer.error
    return answer


def num_elements(pendings: Sequence[Pending]) -> int:
    """The total number of elements in the inputs of some requests. Their run time is estimated from it."""
    return sum(array.size for pending in pendings for array in pending.call.inputs.values())
