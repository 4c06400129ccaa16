"""Requests that run together, and what came of it."""

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
    """The model has answered, and the client's view of that could not be made."""

    error: Exception


class Batch:
    """Requests that run together.

    Attributes:
        pendings: the requests, in order.
        num_rows: rows altogether.
        outputs: the model's outputs, in order.
        has_rows: the first dimension of every tensor is the batch.
        ragged: inputs whose rows may differ in shape.
        respond: makes the response of a request with a `finish`; None leaves that to others.
        answers: for each request, its outputs by name or the error; filled by the runner. Of requests with a `finish`,
            the finished response: it may take its time, as a classification does, so the worker makes it.
        num_executions: how often the model ran: 1, or more if the batch failed and each request ran alone.
        started_ns, ended_ns: when the run began and ended, on the clock.
        input_ns, infer_ns, output_ns: what joining, running and parting took.
        is_given_up: nobody waits for it any more; set on the event loop's thread.
        is_indivisible: what came back for joined requests had another number of rows than they have.
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
        pendings: at least one, all of one group.
        num_rows: rows altogether.
        outputs: the model's outputs, in order.
        policy: whether there are rows at all, and which inputs' rows may differ in shape.
        respond: makes the response of a request with a `finish`; None leaves that to others.
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
        """Fill `answers` with those of the model. Never raises: a failure is the answer of its request."""
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
    except Exception as error:  # noqa: BLE001 - told and counted on the event loop, with the others'
        return Unfinished(error)


def result_of(answer: InferenceResponse | Unfinished) -> InferenceResponse:
    """A finished response. Raises what kept it from being finished."""
    if isinstance(answer, Unfinished):
        raise answer.error
    return answer


def num_elements(pendings: Sequence[Pending]) -> int:
    """Elements of all inputs of some requests: the size that their cost is estimated by."""
    return sum(array.size for pending in pendings for array in pending.call.inputs.values())
