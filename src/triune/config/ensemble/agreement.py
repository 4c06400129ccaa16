"""Check an ensemble against the configs of the models of its steps.

Source of the rules and of the messages: Triton's `ensemble_utils.cc`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from triune.config.datatypes import to_config
from triune.config.ensemble.steps import Step
from triune.config.model_config import ModelConfig, TensorConfig
from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.tensors import format_shape
from triune.protos.model_config_pb2 import DataType as DataTypeMessage


@dataclass(frozen=True, slots=True)
class _Declaration:
    """One model's declaration of a tensor of the ensemble.

    Attributes:
        model: the model, or the ensemble itself.
        datatype: the tensor's datatype.
        dims: the shape without the batch dimension.
        full: the shape with the batch dimension, if the model has one.
    """

    model: str
    datatype: DataType
    dims: tuple[int, ...]
    full: tuple[int, ...]

    @classmethod
    def of(cls, config: ModelConfig, tensor: TensorConfig, dims: tuple[int, ...]) -> "_Declaration":
        full = (-1, *dims) if config.batching.max_batch_size > 0 else dims
        return cls(config.name, tensor.datatype, dims, full)


def fits(dims: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether two shapes have the same rank, and each dimension is equal in both, or free (-1) in one."""
    return len(dims) == len(shape) and all(
        ours == theirs or -1 in (ours, theirs) for ours, theirs in zip(dims, shape, strict=True)
    )


def check_agreement(ensemble: ModelConfig, steps: Sequence[Step], models: Sequence[ModelConfig]) -> None:
    """Check that the tensors that steps pass to each other agree in datatype and shape.

    A tensor may pass from a model with a batch dimension to one without: dims [16] of the first agree with [-1,16] of
    the second.

    Args:
        ensemble: its config.
        steps: its steps.
        models: the config of each step's model.

    Raises:
        InvalidArgumentError: a mapped tensor does not exist, an input is not mapped, or datatypes, dims or batch sizes
            differ. The message names the step, the model and the tensor.
        UnsupportedError: a model of a step is decoupled.
    """
    seen = {
        each.name: _Declaration.of(ensemble, each, each.dims if each.reshape is None else each.reshape)
        for each in (*ensemble.outputs.values(), *ensemble.inputs.values())
    }
    for step, model in zip(steps, models, strict=True):
        _check_step(ensemble, step, model)
        for tensors, mapped in ((model.inputs, step.inputs), (model.outputs, step.outputs)):
            for own, tensor in mapped.items():
                new = _Declaration.of(model, tensors[own], tensors[own].dims)
                _check_pair(ensemble.name, step, tensor, seen.setdefault(tensor, new), new)


def with_labels(ensemble: ModelConfig, steps: Sequence[Step], models: Sequence[ModelConfig]) -> ModelConfig:
    """Copy the ensemble's config. Outputs without labels get those of the model that computes them.

    Args:
        ensemble: its config.
        steps: its steps.
        models: the config of each step's model.
    """
    labels = {
        tensor: model.outputs[own].labels
        for step, model in zip(steps, models, strict=True)
        for own, tensor in step.outputs.items()
    }
    outputs = {
        name: output if output.labels else replace(output, labels=labels.get(name, ()))
        for name, output in ensemble.outputs.items()
    }
    return replace(ensemble, outputs=outputs)


def _check_step(ensemble: ModelConfig, step: Step, model: ModelConfig) -> None:
    name, where = ensemble.name, f" (step {step.number})"
    if model.is_decoupled:
        raise UnsupportedError(
            f"in ensemble {name}, model {model.name} is decoupled{where}: this version has no steps that answer any "
            "other number of times than once"
        )
    ours, theirs = ensemble.batching.max_batch_size, model.batching.max_batch_size
    if 0 < theirs < ours:
        raise InvalidArgumentError(
            f"ensemble {name} allows maximum batch size {ours}, but it contains model {model.name} which only allows "
            f"maximum batch size to be {theirs}{where}; set max_batch_size of the ensemble to {theirs} or less"
        )
    for own, tensor in step.inputs.items():
        if own not in model.inputs:
            raise InvalidArgumentError(
                f"in ensemble {name}, ensemble tensor {tensor} is mapping to non-existing input {own} in model "
                f"{model.name}{where}; its inputs are {', '.join(model.inputs) or 'none'}"
            )
    for own, tensor in model.inputs.items():
        if own not in step.inputs and not tensor.is_optional:
            raise InvalidArgumentError(
                f"in ensemble {name}, input {own} in model {model.name} is not mapped to any ensemble tensors{where}"
            )
    for own, tensor in step.outputs.items():
        if own not in model.outputs:
            raise InvalidArgumentError(
                f"in ensemble {name}, ensemble tensor {tensor} is mapped from non-existing output {own} in model "
                f"{model.name}{where}; its outputs are {', '.join(model.outputs)}"
            )


def _check_pair(name: str, step: Step, tensor: str, first: _Declaration, new: _Declaration) -> None:
    what = f"in ensemble {name}, ensemble tensor {tensor}: inconsistent"
    where = f" (step {step.number})"
    if first.datatype is not new.datatype:
        raise InvalidArgumentError(
            f"{what} data type: {DataTypeMessage.Name(to_config(first.datatype))} is inferred from model {first.model} "
            f"while {DataTypeMessage.Name(to_config(new.datatype))} is inferred from model {new.model}{where}"
        )
    if not fits(first.dims, new.dims) and not fits(first.full, new.full):
        raise InvalidArgumentError(
            f"{what} shape: {format_shape(first.full)} is inferred from model {first.model} while "
            f"{format_shape(new.full)} is inferred from model {new.model}{where}"
        )
