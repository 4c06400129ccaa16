"""Read the units and parameters of a config, for backends that run one instance of a model on each unit. The instance
batches all requests of its unit.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from triune.config.batching import translate_batching
from triune.config.checkpoints import complete_tensors
from triune.config.instances import read_instances
from triune.config.model_config import ModelConfig
from triune.config.parameters import UNITS_PARAMETER, parameters_of
from triune.config.tensors import translate_tensors
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.tensors import Rows, Signature
from triune.core.units import Unit
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.runtimes.machine import Machine

_MAX_COUNT: Final = (1 << 53) - 1
_SHOWN_CHARACTERS: Final = 32


def unit_of(message: ModelConfigMessage, precision: str | None, machine: Machine, runtime: str, backend: str) -> Unit:
    """Choose the unit of a model that runs on one unit only, and complete the instance groups of its config.

    Args:
        message: the config, which is changed.
        precision: the floating-point format that the config names; None means the runtime's default.
        machine: the machine.
        runtime: the runtime that runs the decoder.
        backend: the backend's name, for errors.

    Raises:
        InvalidArgumentError: the config contradicts itself.
        UnsupportedError: the config requests several instances, or a unit that this machine lacks.
    """
    # For fp32 choose `cpu`, unless the config names units: the matrix unit (`amx`) computes in bf16.
    is_fp32 = precision == "fp32" and Unit.CPU in machine.runtimes[runtime].units()
    if is_fp32 and UNITS_PARAMETER not in message.parameters and not message.instance_group:
        message.parameters[UNITS_PARAMETER].string_value = Unit.CPU.value
    # `read_instances` expects a runtime's name in the field `backend`: give it a copy that names the decoder's runtime.
    of_runtime = ModelConfigMessage()
    of_runtime.CopyFrom(message)
    of_runtime.backend = runtime
    instances = read_instances(of_runtime, machine)
    if len(instances.units) * instances.num_instances != 1:
        raise UnsupportedError(
            f"model '{message.name}' asks for {instances.num_instances} instances on each of "
            f"{len(instances.units)} units; backend '{backend}' runs one instance: it batches all requests"
        )
    (unit,) = instances.units
    if is_fp32 and unit is Unit.AMX:
        raise InvalidArgumentError(
            f"'precision' of model '{message.name}' is 'fp32', and the unit 'amx' computes in bf16: leave one of them "
            "out"
        )
    del message.instance_group[:]
    message.instance_group.extend(instances.groups)
    return unit


def read_count(given: Mapping[str, str], name: str, most: int = _MAX_COUNT, why: str = "") -> int | None:
    """Read a parameter that is an integer of at least 1; None if it is absent.

    Args:
        given: the parameters.
        name: the parameter's name.
        most: the largest value.
        why: the reason for this limit and the remedy, for the error message.

    Raises:
        InvalidArgumentError: the value is not such a number.
    """
    text = given.get(name)
    if text is None:
        return None
    digits = text.lstrip("0") if text.isascii() and text.isdigit() else ""
    if not digits:
        raise InvalidArgumentError(
            f"parameter '{name}' is {text[:_SHOWN_CHARACTERS]!r}; it must be a whole number of 1 or more"
        )
    # Compare the number of digits first: Python refuses to convert more than 4300 digits.
    if len(digits) > len(str(most)) or int(digits) > most:
        raise InvalidArgumentError(
            f"parameter '{name}' is {digits[:_SHOWN_CHARACTERS]}; the most is {most}{f': {why}' if why else ''}"
        )
    return int(digits)


def read_choice(given: Mapping[str, str], name: str, choices: Sequence[str]) -> str | None:
    """Read a parameter that is one of `choices`; None if it is absent. Raises InvalidArgumentError for any other
    value.
    """
    text = given.get(name)
    if text is not None and text not in choices:
        raise InvalidArgumentError(f"parameter '{name}' is {text!r}; it must be one of {', '.join(choices)}")
    return text


def one_instance_config(
    message: ModelConfigMessage, path: Path, signature: Signature, units: tuple[Unit, ...], *, is_decoupled: bool
) -> ModelConfig:
    """Make the completed config of a version.

    Args:
        message: the config with its name and backend; its tensors are filled in if it has none.
        path: the file or folder of the checkpoint.
        signature: the tensors of the backend's requests and responses.
        units: the units that run the model, the preferred one first.
        is_decoupled: whether a request may have any number of responses.

    Raises:
        InvalidArgumentError: the config's tensors are not those of the signature.
    """
    complete_tensors(message, signature)
    inputs, outputs = translate_tensors(message, signature, {})
    return ModelConfig(
        message=message,
        name=message.name,
        backend=message.backend,
        path=path,
        inputs=inputs,
        outputs=outputs,
        units=units,
        num_instances=1,
        batching=translate_batching(message, Rows.UNKNOWN),
        warmup=(),
        parameters=parameters_of(message),
        is_decoupled=is_decoupled,
        metric_tags=dict(message.metric_tags),
    )
