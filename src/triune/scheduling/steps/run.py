"""The state of one request to an ensemble while it runs through the steps."""

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
    """A tensor within a request to an ensemble.

    Attributes:
        array: the tensor; None if an optional input was left out, or if the model did not return the output.
        batch_size: the number of rows; 0 if the model that wrote it has no batch dimension.
    """

    array: Array | None
    batch_size: int


class Run:
    """A running request.

    A run is over when its future is done and none of its steps runs. Then its models are released.

    Attributes:
        call: the request.
        future: the future of its answer.
        plan: the steps that the request needs.
        models: the models of the steps, by name and version; the run holds them.
        compute_time: the compute time of all batches of its steps.
        started_ns: the time at which it arrived.
        values: the available tensors that a step or the answer still has to read.
        under_way: the futures of the running steps, by step number.
        num_left: the number of requested outputs that are not available yet.
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
        """Store a tensor.

        Returns:
            the steps all of whose input tensors are available now.
        """
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
        """Read tensors, for one step or for the answer. A tensor is freed after it was read for the last time."""
        taken: dict[str, Value] = {}
        for name in set(names):
            taken[name] = self.values[name]
            self._num_reads[name] -= 1
            if not self._num_reads[name]:
                del self.values[name]
        return taken


def fit(value: Value, dims: tuple[int, ...], *, has_batch: bool) -> Array | None:
    """Add or remove the batch dimension of a tensor, as the model that reads it expects (Triton's `ReshapeTensorDims`).

    If only the reader has a batch dimension, and `dims` fits the whole tensor, a first dimension of 1 is added. If only
    the tensor has one, of 1 row, and `dims` does not fit the whole tensor, it is removed. In all other cases the tensor
    stays as it is.

    Args:
        value: the tensor.
        dims: the shape in the reader's config, without the batch dimension; -1 is a free dimension.
        has_batch: whether the reader has a batch dimension.

    Returns:
        a view of the tensor; None if it has no array.
    """
    array = value.array
    if array is None or has_batch == (value.batch_size > 0):
        return array
    if has_batch:
        return array[np.newaxis] if fits(dims, array.shape) else array
    return array[0] if value.batch_size == 1 and not fits(dims, array.shape) else array


def request_of(run: Run, step: Step, asked: tuple[RequestedOutput, ...], config: ModelConfig) -> InferenceRequest:
    """Make the request of a step to its model, with its tensors and the parameters of the client's request.

    Args:
        run: the running request, from which the tensors are read.
        step: the step.
        asked: the outputs of the model that the step needs.
        config: the configuration of its model.
    """
    given = run.call.request
    has_batch = config.batching.max_batch_size > 0
    values = run.take(step.inputs.values())
    inputs: dict[str, Array] = {}
    for own, tensor in step.inputs.items():
        # The config may lack the input, if the model was replaced. Then checking the request gives the error.
        dims = config.inputs[own].dims if own in config.inputs else ()
        if (array := fit(values[tensor], dims, has_batch=has_batch)) is not None:
            inputs[own] = array
    return InferenceRequest(
        step.model, inputs, step.version, asked, given.id, given.parameters, given.priority, given.timeout_us
    )


def response_of(run: Run, config: ModelConfig, version: int) -> InferenceResponse:
    """Make the response, once all requested outputs are available. Outputs that no model returned are left out.

    The response has the request's parameters `sequence_id`, `sequence_start` and `sequence_end`, as in Triton's
    ensembles.

    Args:
        run: the running request, from which the outputs are read.
        config: the ensemble's configuration.
        version: the ensemble's version.
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
