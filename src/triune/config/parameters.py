"""A config's `parameters`: Triune reads some itself, and the runtime reads the others."""

import math
from collections.abc import Mapping

from triune.config.limits import LOAD_SECONDS_PARAMETER, RUN_SECONDS_PARAMETER
from triune.config.objective import OBJECTIVE_PARAMETER
from triune.config.optimization import OPTIMIZATION_PARAMETER
from triune.config.plan import CHIP_PARAMETER, PLAN_PARAMETER
from triune.core.errors import InvalidArgumentError
from triune.core.runtime import Runtime
from triune.graph.precision import TOLERANCES
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.runtimes.machine import Machine
from triune.runtimes.options import boolean
from triune.runtimes.registry import is_stand_in

UNITS_PARAMETER = "units"
"""The config parameter that names a model's units, "cpu,amx"; it overrides the kinds of `instance_group`."""

OWN_PROCESS_PARAMETER = "own_process"
"""The config parameter that runs each of a model's executables in a separate process."""

PINNED_PARAMETER = "pinned"
"""The config parameter for keeping a model loaded when other models need room: "true" or "false"."""

TOLERANCE_PARAMETER = "unit_tolerance"
"""The config parameter for the relative tolerance of a unit's outputs against those of `cpu`: "0.1"."""

_LEAST_TOLERANCE = 1e-3


def parameters_of(message: ModelConfigMessage) -> Mapping[str, str]:
    """The parameters in a config, without `units`, `own_process` and `pinned`, which Triune reads itself."""
    ours = (UNITS_PARAMETER, OWN_PROCESS_PARAMETER, PINNED_PARAMETER)
    return {name: value.string_value for name, value in message.parameters.items() if name not in ours}


def has_own_process(message: ModelConfigMessage) -> bool:
    """Whether each of the model's executables runs in its own process."""
    given = message.parameters.get(OWN_PROCESS_PARAMETER)
    return given is not None and boolean(OWN_PROCESS_PARAMETER, given.string_value)


def is_pinned(message: ModelConfigMessage, *, by_default: bool) -> bool:
    """Whether a model is never unloaded to make room for others. Raises InvalidArgumentError if `pinned` is not a
    boolean.
    """
    given = message.parameters.get(PINNED_PARAMETER)
    return by_default if given is None else boolean(PINNED_PARAMETER, given.string_value)


def option_names(backend: str, machine: Machine) -> frozenset[str]:
    """The names of all parameters that the backend's runtime or Triune itself reads."""
    names = {UNITS_PARAMETER, OWN_PROCESS_PARAMETER, TOLERANCE_PARAMETER, LOAD_SECONDS_PARAMETER, RUN_SECONDS_PARAMETER}
    names |= {PLAN_PARAMETER, CHIP_PARAMETER, PINNED_PARAMETER, OBJECTIVE_PARAMETER, OPTIMIZATION_PARAMETER}
    for runtime in machine.runtimes.values():
        names.update(options_of(runtime, backend))
    return frozenset(names)


def options_of(runtime: Runtime, backend: str) -> frozenset[str]:
    """The names of parameters that `runtime` reads for a model of `backend`.

    If `runtime` only stands in for the backend's own runtime, it reads just the parameters whose names begin with its
    name, such as `openvino.`.
    """
    if runtime.name == backend:
        return frozenset(runtime.option_names)
    if not is_stand_in(runtime.name, backend):
        return frozenset()
    return frozenset(name for name in runtime.option_names if name.startswith(f"{runtime.name}."))


def read_options(parameters: Mapping[str, str], runtime: Runtime, backend: str) -> dict[str, str]:
    """Select the parameters that `runtime` reads for a model of `backend`."""
    known = options_of(runtime, backend)
    return {name: value for name, value in parameters.items() if name in known}


def tolerance_of(parameters: Mapping[str, str], precision: str) -> float:
    """The allowed difference from the answers of `cpu`, divided by the output's largest value, for a unit that computes
    in this precision.

    Raises:
        InvalidArgumentError: the parameter `unit_tolerance` is not a number of at least 0.
    """
    return given_tolerance(parameters, max(TOLERANCES.get(precision, _LEAST_TOLERANCE), _LEAST_TOLERANCE))


def given_tolerance(parameters: Mapping[str, str], usual: float) -> float:
    """The relative tolerance in the parameter `unit_tolerance`; `usual` if it is absent. Raises the errors of
    `tolerance_of`.
    """
    text = parameters.get(TOLERANCE_PARAMETER)
    if text is None:
        return usual
    try:
        tolerance = float(text)
    except ValueError:
        tolerance = math.nan
    if not tolerance >= 0:
        raise InvalidArgumentError(f"parameter '{TOLERANCE_PARAMETER}' is {text!r}; write a share from 0 on, as 0.1")
    return tolerance
