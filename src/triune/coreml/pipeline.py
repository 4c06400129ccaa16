"""Pipelines of ML Programs, with the interface of a single model."""

from collections.abc import Mapping
from typing import Any, Final

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.state import State
from triune.coreml.description import FunctionDescription
from triune.coreml.model import ExecutorName, Model
from triune.coreml.package import Package, Pipeline


def load_model(
    read: Package | Pipeline, *, function: str | None = None, executor: ExecutorName | None = None
) -> "Model | PipelineModel":
    """Prepare to run a model or a pipeline that `read_model` returned.

    Args:
        read: the model or pipeline.
        function: as for `Model`; None for a pipeline.
        executor: as for `Model`.

    Raises:
        UnsupportedError: `function` is given for a pipeline, or one of its models has states.
        TriuneError: see `Model`.
    """
    if isinstance(read, Package):
        return Model(read, function=function, executor=executor)
    if function is not None and function != read.description.default_function:
        raise UnsupportedError(f"a pipeline has no function '{function}'; its models run their default functions")
    return PipelineModel(read, executor)


class PipelineModel:
    """A pipeline: each model takes inputs of the pipeline and outputs of earlier models, by name."""

    def __init__(self, pipeline: Pipeline, executor: ExecutorName | None) -> None:
        """Prepare all models of the pipeline; see `load_model`."""
        self.interface: Final[FunctionDescription] = pipeline.description.functions[
            pipeline.description.default_function
        ]
        self._stages: Final = [load_model(each, executor=executor) for each in pipeline.stages]
        if any(each.interface.states for each in self._stages):
            raise UnsupportedError("a model of the pipeline has states; Triune runs those without: give it alone")

    def make_state(self) -> State:
        """An empty state: a pipeline has no states."""
        return State({}, lambda _, value: value)

    def predict(self, inputs: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """Compute the outputs; see `Model.predict`.

        Raises:
            InvalidArgumentError: an input is unknown or missing, or a model does not allow it; or no model gives an
                output of the pipeline.
        """
        del state
        known = {feature.name for feature in self.interface.inputs}
        unknown = sorted(inputs.keys() - known)
        if unknown:
            raise InvalidArgumentError(f"the pipeline has no input '{unknown[0]}'; it has {sorted(known)}")
        values = dict(inputs)
        for stage in self._stages:
            taken = [feature.name for feature in stage.interface.inputs]
            values.update(stage.predict({name: values[name] for name in taken if name in values}))
        missing = sorted({feature.name for feature in self.interface.outputs} - values.keys())
        if missing:
            raise InvalidArgumentError(f"no model of the pipeline gives its output '{missing[0]}'")
        return {feature.name: values[feature.name] for feature in self.interface.outputs}
