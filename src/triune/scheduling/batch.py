"""A batch: requests that run together, and their answers."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from triune.config.policy import BatchingPolicy
from triune.core.datatypes import Array
from triune.core.errors import TriuneError
from triune.core.requests import InferenceResponse
from triune.core.units import Unit
from triune.scheduling.batcher import FormedBatch
from triune.scheduling.queue import Pending

Answer: TypeAlias = dict[str, Array] | TriuneError | asyncio.Task[InferenceResponse]
"""A request's outputs by name, or an error; or the task that finishes the response, on the event loop's thread only."""


class Part(NamedTuple):
    """The run of one segment, for a model that is divided into segments.

    Attributes:
        segment: the number of the segment.
        unit: the unit that ran it.
        started_ns, ended_ns: when the run began and ended, on the clock.
    """

    segment: int
    unit: Unit
    started_ns: int
    ended_ns: int


class Batch:
    """Requests that run together.

    Attributes:
        pendings: the requests, in order.
        num_rows, num_elements: the total number of rows, and of elements in all inputs.
        outputs: the model's outputs, in order.
        has_rows: whether the first dimension of every tensor is a batch dimension.
        ragged: inputs whose rows may differ in shape.
        answers: for each request its outputs or an error, from the runner. If the request's `Finisher`, which converts
            outputs to the client's response, is slow, the dispatcher replaces the outputs by the task that runs it, so
            that the worker is free for the next batch.
        num_executions: how often the model ran: 1, or more if the batch failed and each request then ran alone; 0 if
            the worker was not available.
        started_ns, ended_ns: when the run began and ended, on the clock.
        input_ns, infer_ns, output_ns: the time to concatenate inputs, to run the model, and to split outputs.
        parts: the runs of the segments, for a model that is divided into segments.
        is_given_up: whether the batch exceeded its time limit, so that its requests were answered with an error. It is
            set on the event loop's thread.
        is_indivisible: whether an output of several requests did not have one row for each row of the inputs.
    """

    __slots__ = (
        "answers", "ended_ns", "has_rows", "infer_ns", "input_ns", "is_given_up", "is_indivisible", "num_elements",
        "num_executions", "num_rows", "output_ns", "outputs", "parts", "pendings", "ragged", "started_ns",
    )  # fmt: skip

    def __init__(self, formed: FormedBatch, outputs: Sequence[str], policy: BatchingPolicy) -> None:
        """Args:
        formed: the requests.
        outputs: the model's outputs, in order.
        policy: says whether there is a batch dimension, and which inputs are ragged (differ in shape from row to row).
        """
        self.pendings: Sequence[Pending] = formed.pendings
        self.num_rows = formed.num_rows
        self.num_elements = formed.num_elements
        self.answers: Sequence[Answer] = ()
        self.num_executions = 0
        self.started_ns = self.ended_ns = 0
        self.input_ns = self.infer_ns = self.output_ns = 0
        self.parts: Sequence[Part] = ()
        self.is_given_up = False
        self.is_indivisible = False
        self.outputs = outputs
        self.has_rows = policy.max_batch_size > 0
        self.ragged = policy.ragged_inputs
