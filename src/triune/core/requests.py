"""Inference requests and responses, independent of any wire protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from triune.core.datatypes import Array

Parameter: TypeAlias = bool | int | float | str

UNIT_PARAMETER = "triune_unit"
"""The request parameter that names the unit to compute on. Emulated units serve only requests that name them. In the
response to a request with `triune_energy` or `triune_placement`, it names the units that computed it, the unit with the
most rows first.
"""


ENERGY_PARAMETER = "triune_energy"
"""If this request parameter is true, the response states its energy: this parameter of the response is "measured",
"estimated" or "unavailable", and `triune_joules` or `triune_energy_reason` is added.
"""

PLACEMENT_PARAMETER = "triune_placement"
"""If this request parameter is true, the response states where it was computed: this parameter of the response is
the unit that the config requests, `triune_planned_units` lists the units of the plan, and `triune_unit` the units that
computed the request.
"""


def _no_parameters() -> dict[str, Parameter]:
    # This function is the factory of empty dicts. `dict[str, Parameter]` would take ten times as long: it tries, and
    # fails, to set `__orig_class__` on the dict.
    return {}


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the client asked for by name.

    Attributes:
        name: the output's name.
        num_classes: the number of classes to return, for the classification extension; 0 returns the tensor.
    """

    name: str
    num_classes: int = 0


class CheckCache:
    """The result of checking a request, shared by requests that differ only in their id and the contents of tensors.

    A front end that recognizes such requests gives all of them the same CheckCache. The server checks the first one and
    stores the result here. Before it uses the result for another request, it makes sure that the model has not changed.

    Attributes:
        result: the result that the server stored; None before that.
    """

    __slots__ = ("result",)

    def __init__(self) -> None:
        self.result: object = None


@dataclass(slots=True)
class InferenceRequest:
    """One inference request. A front end creates it; nothing changes it after `Server.infer` checked it.

    Attributes:
        model: the model's name.
        version: the requested version; None takes the newest that is ready.
        inputs: the arrays by name. They may be read-only views of the buffer that the front end received.
        outputs: the outputs to return; empty means all outputs.
        id: the client's name for the request, which the response repeats.
        parameters: the request's other parameters, for models that read them.
        priority: 1 is the highest; 0 takes the model's default level.
        timeout_us: how long the request may wait in the model's queue; 0 takes the model's default.
        check_cache: where the server stores the result of checking this request, for others with the same model,
            version, parameters, outputs, and names, datatypes and shapes of inputs. It must not be set if the check
            depends on elements of the inputs. With None, the request is checked by itself.
    """

    model: str
    inputs: dict[str, Array] = field(repr=False)
    version: int | None = None
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=_no_parameters)
    priority: int = 0
    timeout_us: int = 0
    check_cache: CheckCache | None = field(default=None, compare=False)


@dataclass(slots=True)
class InferenceResponse:
    """The answer to one request.

    Attributes:
        model: the model's name.
        version: the version that answered.
        outputs: the arrays by name, in the order in which they were requested, or in the model's order.
        id: the request's id.
        parameters: the parameters that the model adds to its answer.
        is_final: no further response of the same request follows.
    """

    model: str
    version: int
    outputs: dict[str, Array] = field(repr=False)
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=_no_parameters)
    is_final: bool = True
