"""Parse the steps of an ensemble's config.

Source of the rules and of the messages: Triton's `model_config_utils.cc`, ValidateEnsembleSchedulingConfig.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from triune.config.ensemble.flow import check_flow
from triune.core.errors import InvalidArgumentError
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.protos.model_config_pb2 import ModelEnsembling

PLATFORM = "ensemble"

NEWEST = -1
"""The `model_version` of a step that calls the newest version."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a model, and the ensemble's tensors that it reads and writes.

    Attributes:
        number: its index in the config, from 0.
        model: the model's name.
        version: the model's version; None takes the newest that is ready.
        inputs: for each input of the model, the name of the ensemble's tensor.
        outputs: for each output of the model, the name of the ensemble's tensor.
    """

    number: int
    model: str
    version: int | None
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def __str__(self) -> str:
        return f"step {self.number}, model '{self.model}'"


def is_ensemble(message: ModelConfigMessage) -> bool:
    """Whether a config describes an ensemble, even an invalid one."""
    return message.platform == PLATFORM or message.HasField("ensemble_scheduling")


def translate_steps(message: ModelConfigMessage) -> tuple[Step, ...]:
    """The steps of an ensemble, in the config's order.

    Args:
        message: the ensemble's config, in which `name` is set.

    Raises:
        InvalidArgumentError: the config sets a field that an ensemble cannot have, a step is incomplete, or an output
            cannot be computed from the inputs.
    """
    _check_fields(message)
    steps = tuple(_translate(step, number, message) for number, step in enumerate(message.ensemble_scheduling.step))
    check_flow(message.name, [each.name for each in message.input], [each.name for each in message.output], steps)
    return steps


def _check_fields(message: ModelConfigMessage) -> None:
    name = message.name
    if message.platform != PLATFORM:
        raise InvalidArgumentError(
            f"ensemble scheduling cannot be set for model '{name}' whose platform is not {PLATFORM}; "
            f'write platform: "{PLATFORM}"'
        )
    if message.backend:
        raise InvalidArgumentError(
            f"Ensemble model '{name}' must have platform type '{PLATFORM}' and empty backend type; its backend is "
            f"'{message.backend}'"
        )
    if not message.HasField("ensemble_scheduling"):
        raise InvalidArgumentError(f"ensemble scheduling must be set for ensemble {name} whose platform is {PLATFORM}")
    if message.instance_group:
        raise InvalidArgumentError(
            f"instance group should not be specified for ensemble '{name}'; give it to the models of its steps"
        )
    if message.HasField("optimization"):
        raise InvalidArgumentError(
            f"optimization should not be specified for ensemble '{name}'; give it to the models of its steps"
        )
    if message.model_warmup:
        raise InvalidArgumentError(
            f"model_warmup can not be specified for ensemble '{name}'; give it to the models of its steps"
        )
    if not message.ensemble_scheduling.step:
        raise InvalidArgumentError(f"must specify 'step' for ensemble '{name}'")


def _translate(step: ModelEnsembling.Step, number: int, message: ModelConfigMessage) -> Step:
    for field, is_set in (
        ("model_name", bool(step.model_name)),
        ("input_map", len(step.input_map) > 0),
        ("output_map", len(step.output_map) > 0),
    ):
        if not is_set:
            raise InvalidArgumentError(f"must specify '{field}' in step {number} of ensemble '{message.name}'")
    version = None if step.model_version == NEWEST else step.model_version
    inputs, outputs = dict(sorted(step.input_map.items())), dict(sorted(step.output_map.items()))
    return Step(number, step.model_name, version, inputs, outputs)
