"""A model that runs without a server: the base class for ONNX models, Core ML programs and Core AI programs."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.state import State
from triune.core.tensors import Signature


class Model(ABC):
    """One function of a model, ready to run. Close it, or use it as a context manager, to free it.

    `run` follows ONNX Runtime's call and can choose outputs; `predict` follows Core ML's. Both compute the same.
    Threads may call them concurrently; calls with the same state run one after the other.

    Attributes:
        name: the model's name in messages: its file's name.
        function: the name of the function; "main" if the model has only one.
        output_names: the outputs' names, in the model's order.
    """

    def __init__(self, name: str, function: str, output_names: Sequence[str]) -> None:
        """Store the attributes that all models have. A subclass calls this last, when the model is ready to run."""
        self.name: Final = name
        self.function: Final = function
        self.output_names: Final = tuple(output_names)
        self._is_closed = False

    def run(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None, *, state: State | None = None
    ) -> dict[str, Any]:
        """Compute outputs.

        Args:
            inputs: arrays by input name. Numbers, strings and lists become arrays if no value changes. An image is a
                Pillow image or an array.
            outputs: the names of the outputs to compute; all if None or empty.
            state: buffers from `make_state`, required if the model has states, optional otherwise; updated by the call.

        Returns:
            The output arrays by name. A Core ML classifier returns its label, and the probabilities by label.

        Raises:
            InvalidArgumentError: an input is missing, unknown or of the wrong shape or datatype, an output is unknown,
                or the state is missing or belongs to another model.
            UnavailableError: the model is closed.
        """
        if self._is_closed:
            raise UnavailableError(f"the model '{self.name}' is closed; load it again")
        if not outputs:
            return self._compute(inputs, self.output_names, state)
        strange = sorted(set(outputs) - set(self.output_names))
        if strange:
            raise InvalidArgumentError(f"the model has no output '{strange[0]}'; it has {', '.join(self.output_names)}")
        found = self._compute(inputs, outputs, state)
        return {name: found[name] for name in outputs}

    def predict(self, inputs: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """Compute all outputs. The arguments are those of Core ML's `predict`; otherwise this is the same as `run`."""
        return self.run(inputs, state=state)

    def predict_batch(self, requests: Sequence[Mapping[str, Any]], state: State | None = None) -> list[dict[str, Any]]:
        """Compute several requests, one after the other."""
        return [self.run(inputs, state=state) for inputs in requests]

    async def predict_async(self, inputs: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """Call `predict` in another thread."""
        return await asyncio.to_thread(self.predict, inputs, state)

    @property
    @abstractmethod
    def signature(self) -> Signature:
        """The inputs and outputs, without states. Raises UnsupportedError if one of them is not a tensor."""

    @abstractmethod
    def make_state(self) -> State:
        """Make new buffers, filled with zeros, for the model's states; no buffers if it has none."""

    def close(self) -> None:
        """Free the model. No call may be running. A second `close` does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        closed = ", closed" if self._is_closed else ""
        return f"<Model '{self.name}' {self._location()}{closed}: {self._interface()}>"

    @abstractmethod
    def _compute(self, inputs: Mapping[str, Any], outputs: Sequence[str], state: State | None) -> dict[str, Any]:
        """Compute at least the named outputs. Raises the errors of `run`."""

    @abstractmethod
    def _free(self) -> None:
        """Free the executable or executor. Called once."""

    @abstractmethod
    def _location(self) -> str:
        """Describe the unit and the precision for `repr`: "on cpu (fp32)"."""

    @abstractmethod
    def _interface(self) -> str:
        """Describe the inputs and outputs for `repr`: "x: FP32[2,4] -> y: FP32[2,4]"."""


def needs_state(names: Sequence[str]) -> InvalidArgumentError:
    """Make the error for a model with states that was called without one."""
    return InvalidArgumentError(f"the model has states {list(names)}: give state=model.make_state()")
