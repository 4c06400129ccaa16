"""Graphs of ensemble steps, over servables whose answers a function computes."""

import math
from collections.abc import Callable, Mapping, Sequence

from support.configs import model_config
from support.table_servable import TableServable
from triune.config.ensemble.steps import Step
from triune.config.model_config import TensorConfig
from triune.core.clock import Clock, MonotonicClock
from triune.core.datatypes import Array, DataType
from triune.core.errors import NotFoundError
from triune.core.requests import InferenceResponse
from triune.core.servable import Call, Servable
from triune.core.statistics import ModelStatistics
from triune.scheduling.models import LoadedVersion
from triune.scheduling.steps.graph import StepGraph

Compute = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class Shelf:
    """Models by name, each with one version."""

    def __init__(self, *models: LoadedVersion) -> None:
        self.models = {each.config.name: each for each in models}

    def get(self, name: str, version: int | None = None) -> LoadedVersion:
        if name not in self.models or version not in (None, 1):
            raise NotFoundError(f"Request for unknown model: '{name}' is not found")
        return self.models[name]

    def table(self, name: str) -> TableServable:
        servable = self.models[name].servable
        assert isinstance(servable, TableServable)
        return servable


def fp32(*names: str, dims: tuple[int, ...] = (-1,)) -> list[TensorConfig]:
    """FP32 tensors whose rows are vectors of any length."""
    return [TensorConfig(name, DataType.FP32, dims) for name in names]


def on_shelf(
    name: str,
    inputs: Sequence[TensorConfig],
    outputs: Sequence[TensorConfig],
    servable: Servable,
    *,
    max_batch_size: int = 8,
) -> LoadedVersion:
    """A model that a step may call."""
    return LoadedVersion(1, model_config(inputs, outputs, name=name, max_batch_size=max_batch_size), servable)


def table_model(
    name: str,
    inputs: Sequence[TensorConfig],
    outputs: Sequence[TensorConfig],
    compute: Compute,
    *,
    max_batch_size: int = 8,
) -> LoadedVersion:
    """A model whose outputs are a function of its inputs. It answers in the next iteration of the event loop."""

    def answer(call: Call) -> InferenceResponse:
        results = compute(call.inputs)
        names = [each.name for each in call.request.outputs] or list(results)
        if call.compute_time is not None:
            call.compute_time.add(1, 2, 3)
        return InferenceResponse(name, 1, {each: results[each] for each in names if each in results}, call.request.id)

    return on_shelf(name, inputs, outputs, TableServable(answer), max_batch_size=max_batch_size)


def step(number: int, model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Step:
    return Step(number, model, None, inputs, outputs)


def graph(
    shelf: Shelf,
    steps: Sequence[Step],
    inputs: Sequence[TensorConfig],
    outputs: Sequence[TensorConfig],
    *,
    name: str = "ensemble",
    max_batch_size: int = 8,
    clock: Clock | None = None,
    max_under_way: int = 0,
    max_waiting: int = 0,
    run_limit_seconds: float = math.inf,
) -> StepGraph:
    config = model_config(inputs, outputs, name=name, max_batch_size=max_batch_size)
    return StepGraph(
        config,
        1,
        steps,
        shelf,
        ModelStatistics(),
        clock or MonotonicClock(),
        max_under_way=max_under_way,
        max_waiting=max_waiting,
        run_limit_seconds=run_limit_seconds,
    )
