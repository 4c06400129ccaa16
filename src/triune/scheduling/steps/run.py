"""One request on its way through the steps of a graph."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from triune.config.ensemble.agreement import fits
from triune.config.ensemble.steps import Step
from triune.config.model_config import ModelConfig
from triune.core.datatypes import Array
from triune.core.requests import InferenceRequest, InferenceResponse, Parameter, RequestedOutput
from triune.core.servable import Call, ComputeTime
from triune.scheduling.models import LoadedVersion
from triune.scheduling.steps.plan import Plan


class Value(NamedTuple):
    """A tensor of a request. `array` is None where an optional input was left out, or an output was not given.

    `batch_size` is how many rows it has, 0 where whoever gave it has no batch dimension.
    """

    array: Array | None
    batch_size: int


class Run:
    """A request under way.

    State law: over means that its future is done and no step of it is under way; what it held is released then.

    Attributes:
        call: the request.
        future: its answer's.
        plan: the steps it needs.
        models: what they ask, by model and version, held.
        compute_time: what their batches took.
        started_ns: when it came.
        values: the tensors that are there and that a step, or the answer, has yet to take.
        under_way: the futures of the steps that were begun, by number.
        num_left: outputs asked for that are not there yet.
    """

    __slots__ = (
        "_num_reads",
        "_num_waits",
        "_outputs",
        "call",
        "compute_time",
        "future",
        "models",
        "num_left",
        "plan",
        "started_ns",
        "under_way",
        "values",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        future: asyncio.Future[InferenceResponse],
        plan: Plan,
        models: Mapping[tuple[str, int | None], LoadedVersion],
        outputs: Iterable[str],
        started_ns: int,
    ) -> None:
        self.call = call
        self.future = future
        self.plan = plan
        self.models = models
        self.compute_time = ComputeTime()
        self.started_ns = started_ns
        self.values: dict[str, Value] = {}
        self.under_way: dict[int, asyncio.Future[InferenceResponse]] = {}
        self._outputs = frozenset(outputs)
        self.num_left = len(self._outputs)
        self._num_waits = dict(plan.num_waits)
        self._num_reads = dict(plan.num_reads)

    def put(self, name: str, value: Value) -> Iterable[int]:
        """A tensor is there. Returns the steps that have waited for nothing else."""
        if name not in self._num_reads:
            return ()
        self.values[name] = value
        self.num_left -= name in self._outputs
        ready: list[int] = []
        for number in self.plan.readers.get(name, ()):
            self._num_waits[number] -= 1
            if not self._num_waits[number]:
                ready.append(number)
        return ready

    def take(self, names: Iterable[str]) -> Mapping[str, Value]:
        """Tensors for one step, or for the answer. Each is forgotten once nobody else needs it."""
        taken: dict[str, Value] = {}
        for name in set(names):
            taken[name] = self.values[name]
            self._num_reads[name] -= 1
            if not self._num_reads[name]:
                del self.values[name]
        return taken


def fit(value: Value, dims: tuple[int, ...], *, has_batch: bool) -> Array | None:
    """A tensor as its next reader takes it: with a batch dimension, or without. A view.

    The same where both have one or neither has, or where the whole shape is that of a reader without; else a batch of
    one row is made, or its row taken (Triton's `ReshapeTensorDims`).

    Args:
        value: the tensor.
        dims: the shape of a row as the reader's config states it; -1 where it is free.
        has_batch: the reader has a batch dimension.
    """
    array = value.array
    if array is None or has_batch == (value.batch_size > 0):
        return array
    if has_batch:
        return array[np.newaxis] if fits(dims, array.shape) else array
    return array[0] if value.batch_size == 1 and not fits(dims, array.shape) else array


def request_of(run: Run, step: Step, asked: tuple[RequestedOutput, ...], config: ModelConfig) -> InferenceRequest:
    """What a step asks its model: the tensors that it maps, and what else the client has said.

    Args:
        run: the request under way; the step's tensors are taken from it.
        step: the step.
        asked: the outputs that it maps.
        config: its model's.
    """
    given = run.call.request
    has_batch = config.batching.max_batch_size > 0
    values = run.take(step.inputs.values())
    inputs: dict[str, Array] = {}
    for own, tensor in step.inputs.items():
        # An input that there is not any more, since the model was replaced, is refused by whoever checks the request.
        dims = config.inputs[own].dims if own in config.inputs else ()
        if (array := fit(values[tensor], dims, has_batch=has_batch)) is not None:
            inputs[own] = array
    return InferenceRequest(
        step.model, inputs, step.version, asked, given.id, given.parameters, given.priority, given.timeout_us
    )


def response_of(run: Run, config: ModelConfig, version: int) -> InferenceResponse:
    """The answer, once all outputs that the client asked for are there. What no model gave is left out.

    It says of a sequence what the request did, as every answer of an ensemble does in Triton.

    Args:
        run: the request under way; its outputs are taken from it.
        config: the graph's.
        version: the graph's.
    """
    request = run.call.request
    names = [output.name for output in request.outputs] or list(config.outputs)
    values = run.take(names)
    outputs: dict[str, Array] = {}
    for name in names:
        output = config.outputs[name]
        dims = output.dims if output.reshape is None else output.reshape
        array = fit(values[name], dims, has_batch=config.batching.max_batch_size > 0)
        if array is not None:
            outputs[name] = array
    parameters: dict[str, Parameter] = {
        "sequence_id": request.parameters.get("sequence_id", 0),
        "sequence_start": bool(request.parameters.get("sequence_start", False)),
        "sequence_end": bool(request.parameters.get("sequence_end", False)),
    }
    return InferenceResponse(config.name, version, outputs, request.id, parameters)
