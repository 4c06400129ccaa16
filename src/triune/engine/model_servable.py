"""Base class of servables that answer requests, whose inputs are tensors, with a text, speech or embedding model."""

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics


class ServedModel(Protocol):
    """The interface of a loaded model that the server uses for every kind of model."""

    @property
    def statistics(self) -> ModelStatistics:
        """Triton's counters."""
        ...

    def refuse(self) -> None:
        """Implements `Servable.refuse`."""
        ...

    async def drain(self) -> None:
        """Implements `Servable.drain`."""
        ...

    async def close(self) -> None:
        """Implements `Servable.close`."""
        ...


M = TypeVar("M", bound=ServedModel)


class ModelServable(Generic[M]):
    """Base class of a `Servable` that forwards calls to its model.

    Attributes:
        model: the model.
    """

    def __init__(self, model: M, name: str, version: int) -> None:
        """Args:
        model: the model; `close` closes it.
        name: the model's name, for responses and errors.
        version: its version.
        """
        self.model = model
        self._name = name
        self._version = version

    @property
    def statistics(self) -> ModelStatistics:
        """Implements `Servable.statistics`."""
        return self.model.statistics

    def refuse(self) -> None:
        """Implements `Servable.refuse`."""
        self.model.refuse()

    async def drain(self) -> None:
        """Implements `Servable.drain`."""
        await self.model.drain()

    async def close(self) -> None:
        """Implements `Servable.close`."""
        await self.model.close()

    def respond(self, call: Call, outputs: Mapping[str, Array], *, is_final: bool = True) -> InferenceResponse:
        """Make a response, and convert it to the form that the client requested.

        Args:
            call: the request.
            outputs: the response's tensors by name.
            is_final: whether no response to this request follows.
        """
        response = InferenceResponse(self._name, self._version, dict(outputs), call.request.id, is_final=is_final)
        return response if call.finish is None else call.finish.convert(response)


def text_of(call: Call, name: str, default: str = "") -> str:
    """The text in input `name`, BYTES [1]; `default` if the request does not have it.

    Raises:
        InvalidArgumentError: the text is not UTF-8.
    """
    array = call.inputs.get(name)
    if array is None:
        return default
    value = array[0]
    try:
        return value if isinstance(value, str) else bytes(value).decode()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(
            f"input '{name}' is not UTF-8: {error.reason} at byte {error.start}; encode the text as UTF-8"
        ) from None
