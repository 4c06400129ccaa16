"""Inference requests and responses, independent of any wire protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from triune.core.datatypes import Array

Parameter: TypeAlias = bool | int | float | str

UNIT_PARAMETER = "triune_unit"
"""The request parameter that names the unit to compute on. Emulated units serve only requests that name them."""


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the client asked for by name.

    Attributes:
        name: the output's name.
        num_classes: for the classification extension, the number of classes to return; 0 returns the tensor.
    """

    name: str
    num_classes: int = 0


class CheckCache:
    """The result of a request check, shared by requests that differ only in their id and their tensors' contents.

    A front end that recognizes such requests gives them one CheckCache. The server checks the first of them and stores
    the result here. Whoever reads the result must make sure that it is still valid.

    Attributes:
        result: what the server stored; None before that.
    """

    __slots__ = ("result",)

    def __init__(self) -> None:
        self.result: object = None


@dataclass(slots=True)
class InferenceRequest:
    """One inference request. A front end creates it; nothing changes it after `Server.infer` checked it.

    Attributes:
        model: the model's name.
        version: the version asked for; None takes the newest that is ready.
        inputs: name to array. Arrays may be views of the buffer that the front end received: read only.
        outputs: what to return; empty means every output.
        id: the client's own name for the request, echoed in the response.
        parameters: the request's other parameters, for models that read them.
        priority: 1 is the highest; 0 takes the model's default level.
        timeout_us: how long the request may wait in the model's queue; 0 takes the model's default.
        check_cache: shared with requests of the same model, version, names, datatypes, shapes, outputs and parameters,
            whose check needs no element of their inputs. None if the front end does not recognize such requests.
    """

    model: str
    inputs: dict[str, Array]
    version: int | None = None
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])
    priority: int = 0
    timeout_us: int = 0
    check_cache: CheckCache | None = field(default=None, compare=False)


@dataclass(slots=True)
class InferenceResponse:
    """The answer to one request.

    Attributes:
        model: the model's name.
        version: the version that answered.
        outputs: name to array, in the order asked for (the model's order if none was named).
        id: the request's id.
        parameters: what the model adds to its answer.
        is_final: no further response of the same request follows.
    """

    model: str
    version: int
    outputs: dict[str, Array]
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])
    is_final: bool = True
